"""The decoder over every prompt, layer by layer: second moments, peaks, cache ranges, answers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.passes.activation_statistics import Peaks
from edge_medgemma.calibration.passes.layer_runner import GraphStages, Stage, StageSession
from edge_medgemma.calibration.passes.vision_pass import reference_rows
from edge_medgemma.calibration.prompts import Prompt
from edge_medgemma.calibration.resume_store import State
from edge_medgemma.calibration.search.gram import Gram
from edge_medgemma.runtime.generation.masks import NO_IMAGE
from edge_medgemma.runtime.model_shape import TextSpec

Array = NDArray[np.float32]
Feeds = dict[str, NDArray[np.generic]]


def image_weight(prompts: Sequence[Prompt]) -> float:
    """What a row of an image counts in the second moments, where one of text counts 1.

    A slice has hundreds of rows and an answer one: unweighted, the more slices there are, the worse
    an engine of few bits writes. Images count no more than text altogether.
    """
    is_image = np.concatenate([prompt.rows.images != NO_IMAGE for prompt in prompts])
    images = int(is_image.sum())
    return min(1.0, (len(is_image) - images) / images) if images else 1.0


class DecoderPass:
    """Runs decoder.onnx once over all prompts, a layer at a time, and keeps what was found."""

    def __init__(
        self,
        stages: GraphStages,
        text: TextSpec,
        state: State,
        prompts: Sequence[Prompt],
        feeds: Callable[[Prompt], Feeds],
        held_out: Sequence[bool],
        threads: int | None = None,
    ) -> None:
        self._stages = stages
        self._text = text
        self._state = state
        self._prompts = prompts
        self._feeds = feeds
        self._held_out = held_out
        self._threads = threads
        calibrated = [p for p, held in zip(prompts, held_out, strict=True) if not held]
        self._image_scale = math.sqrt(image_weight(calibrated))

    def run(self, on_layer: Callable[[int], None]) -> Array:
        """Logits [answers, vocabulary] of the held-out prompts' questions, in order."""
        stream: list[Array] | None = None
        for index in range(self._text.layers):
            if not self._state.has(f"decoder.{index}"):
                if stream is None and index:
                    stream = self._saved_stream(index - 1)
                stream = self._layer(index, stream)
            on_layer(index)
        if not self._state.has("answers"):
            logits = self._answers(stream or self._saved_stream(self._text.layers - 1))
            self._state.save("answers", {"logits": logits})
        on_layer(self._text.layers)
        arrays, _ = self._state.load("answers")
        answers: Array = arrays["logits"]
        return answers

    def _saved_stream(self, index: int) -> list[Array]:
        arrays, _ = self._state.load(f"decoder_stream.{index}")
        return [arrays[str(i)] for i in range(len(self._prompts))]

    def _layer(self, index: int, stream: list[Array] | None) -> list[Array]:
        stage = self._stages.stage(index)
        session = StageSession(stage, self._stages.directory, self._threads)
        grams = {
            linear.name: Gram.empty(self._stages.weight(linear.weight).shape[0])
            for linear in stage.linears
        }
        peaks = Peaks()
        caches = {f"present_{kind}.{index}": self._zero_ranges() for kind in ("key", "value")}
        following: list[Array] = []
        for number, prompt in enumerate(self._prompts):
            values = self._run(stage, session, prompt, stream[number] if stream else None)
            following.append(values[stage.stream_output][0])
            if self._held_out[number]:
                continue
            peaks.update(values)
            for name, ranges in caches.items():
                np.maximum(ranges, np.abs(values[name][0]).max(axis=1), out=ranges)
            scales = np.where(prompt.rows.images != NO_IMAGE, self._image_scale, 1)
            for linear in stage.linears:
                rows = values[linear.input][0] * scales[:, None].astype(np.float32)
                grams[linear.name] = grams[linear.name].plus(rows)
        arrays: Feeds = dict(caches)
        for name, found in grams.items():
            arrays |= {f"{key}:{name}": value for key, value in found.packed().items()}
        arrays["reference"] = reference_rows(
            [s for s, held in zip(following, self._held_out, strict=True) if held]
        )
        self._state.save(
            f"decoder_stream.{index}", {str(i): one for i, one in enumerate(following)}
        )
        self._state.save(f"decoder.{index}", arrays, {"peaks": peaks.by_name})
        self._state.drop(f"decoder_stream.{index - 1}")
        return following

    def _run(
        self, stage: Stage, session: StageSession, prompt: Prompt, stream: Array | None
    ) -> dict[str, Any]:
        feeds = self._feeds(prompt)
        if stream is not None:
            feeds[str(stage.stream_input)] = stream[None]
        text, count = self._text, len(prompt.ids)
        empty = np.zeros((1, text.kv_heads, count, text.head_dim), np.float32)
        feeds |= {f"past_{kind}.{stage.index}": empty for kind in ("key", "value")}
        return session.run(feeds, session.floats)

    def _answers(self, stream: list[Array]) -> Array:
        stage = self._stages.stage(len(self._stages) - 1)
        session = StageSession(stage, self._stages.directory, self._threads, packed=False)
        logits = []
        for number, prompt in enumerate(self._prompts):
            if self._held_out[number]:
                feeds: Feeds = {
                    str(stage.stream_input): stream[number][None],
                    "logit_rows": prompt.logit_rows,
                }
                logits.append(session.run(feeds, [stage.stream_output])[stage.stream_output])
        answers: Array = np.concatenate(logits).astype(np.float32)
        return answers

    def _zero_ranges(self) -> Array:
        return np.zeros((self._text.kv_heads, self._text.head_dim), np.float32)
