"""The vision tower over every slice, layer by layer: ranges, smoothing, image features."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.passes.activation_statistics import (
    SAMPLE_ROWS,
    InputStatistics,
    Peaks,
)
from edge_medgemma.calibration.passes.layer_runner import GraphStages, Stage, StageSession
from edge_medgemma.calibration.resume_store import State
from edge_medgemma.calibration.search.smoothing import choose_activation

Array = NDArray[np.float32]

SMOOTHABLE = ("self_attn.qkv_proj", "self_attn.out_proj", "mlp.fc1")
"""Linear layers whose input is made by a LayerNorm or by the value projection, which take a division
exactly. fc2 reads a GELU, which does not."""

REFERENCE_ROWS = 32
"""Rows of the residual stream of each held-out slice or prompt that are kept, to compare with."""


class VisionPass:
    """Runs vision.onnx once over all slices, a layer at a time, and keeps what was found."""

    def __init__(
        self,
        stages: GraphStages,
        state: State,
        pixel_values: Callable[[int], Array],
        held_out: Sequence[bool],
        threads: int | None = None,
    ) -> None:
        """`pixel_values(n)` is slice n as [1, 3, size, size]; `held_out[n]` keeps it from the
        statistics."""
        self._stages = stages
        self._state = state
        self._pixel_values = pixel_values
        self._held_out = held_out
        self._threads = threads
        self._share = -(-SAMPLE_ROWS // max(1, len(held_out) - sum(held_out)))

    def run(self, on_layer: Callable[[int], None]) -> Array:
        """Image features [slices, tokens_per_image, hidden]; `on_layer` is told of each layer."""
        stream: list[Array] | None = None
        for index in range(len(self._stages)):
            if not self._state.has(f"vision.{index}"):
                if stream is None and index:
                    arrays, _ = self._state.load(f"vision_stream.{index - 1}")
                    stream = list(arrays["stream"])
                stream = self._layer(index, stream)
            on_layer(index)
        arrays, _ = self._state.load(f"vision_stream.{len(self._stages) - 1}")
        features: Array = arrays["stream"]
        return features

    def _layer(self, index: int, stream: list[Array] | None) -> list[Array]:
        stage = self._stages.stage(index)
        session = StageSession(stage, self._stages.directory, self._threads)
        statistics = {
            linear.name: InputStatistics(self._stages.weight(linear.weight).shape[0], index)
            for linear in stage.linears
        }
        peaks = Peaks()
        following: list[Array] = []
        for number, is_held_out in enumerate(self._held_out):
            feeds = (
                {"pixel_values": self._pixel_values(number)}
                if stream is None
                else {str(stage.stream_input): stream[number][None]}
            )
            values: dict[str, Any] = session.run(feeds, session.floats)
            following.append(values[stage.stream_output][0])
            if is_held_out:
                continue
            peaks.update(values)
            for linear in stage.linears:
                x = values[linear.input]
                statistics[linear.name].update(x.reshape(-1, x.shape[-1]), self._share)
        arrays, note = self._choices(stage, statistics)
        arrays["reference"] = reference_rows(
            [s for s, held in zip(following, self._held_out, strict=True) if held]
        )
        self._state.save(f"vision_stream.{index}", {"stream": np.stack(following)})
        self._state.save(f"vision.{index}", arrays, {"linears": note, "peaks": peaks.by_name})
        self._state.drop(f"vision_stream.{index - 1}")
        return following

    def _choices(
        self, stage: Stage, statistics: dict[str, InputStatistics]
    ) -> tuple[dict[str, NDArray[np.generic]], dict[str, Any]]:
        arrays: dict[str, NDArray[np.generic]] = {}
        note: dict[str, Any] = {}
        for linear in stage.linears:
            found = statistics[linear.name]
            choice = choose_activation(
                found.rows,
                found.largest,
                np.asarray(self._stages.weight(linear.weight)),
                can_smooth=linear.name.endswith(SMOOTHABLE),
            )
            arrays[f"scale:{linear.name}"] = choice.scale
            arrays[f"largest:{linear.name}"] = found.largest
            note[linear.name] = {
                "exponent": choice.exponent,
                "method": choice.method,
                "limit": choice.limit,
                "error": choice.error,
                "plain_error": choice.plain_error,
            }
        return arrays, note


def reference_rows(streams: Sequence[Array]) -> Array:
    """[streams, REFERENCE_ROWS, width]: evenly spaced rows of every stream [rows, width]."""
    picked = [s[np.linspace(0, len(s) - 1, REFERENCE_ROWS).round().astype(int)] for s in streams]
    return np.stack(picked).astype(np.float32)
