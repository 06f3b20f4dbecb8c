"""A checkpoint's language model in float32, one layer in memory and on disk at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.passes.layer_runner import GraphStages, Stage, StageSession
from edge_medgemma.calibration.prompts import one_pass_feeds
from edge_medgemma.calibration.search.gram import Gram
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint, Tensor
from edge_medgemma.export.checkpoint.tensor_names import EMBEDDING, HEAD
from edge_medgemma.export.graphs.decoder import DecoderWriter
from edge_medgemma.export.graphs.ort_dialect import OrtDialect
from edge_medgemma.export.graphs.weights import FLOAT32
from edge_medgemma.export.graphs.writer import write_bytes, write_data
from edge_medgemma.runtime.errors import CheckpointError
from edge_medgemma.runtime.generation.masks import TokenMeta

Array = NDArray[np.float32]

LARGEST_ACTIVATION = 1e15
"""Squares of more do not add up in float32; Gemma 3 stays below 1e6."""

HEAD_ROWS = 8192
"""Rows of the head that are in memory at once."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A sequence of tokens that is read in one pass."""

    ids: tuple[int, ...]
    rows: TokenMeta
    embeddings: Array
    """[tokens, hidden]: rows of the table times the scale, image features where images are"""
    is_held_out: bool
    """Measures the loss, and is not looked at for anything else"""
    answer_rows: NDArray[np.int64]
    """Rows whose next token is judged"""

    @property
    def next_ids(self) -> NDArray[np.int64]:
        """The tokens after `answer_rows`."""
        return np.array(self.ids, np.int64)[self.answer_rows + 1]

    def feeds(self, embeddings: Array, window: int) -> dict[str, NDArray[np.generic]]:
        """Inputs of decoder.onnx but for the caches, with these embeddings [tokens, hidden]."""
        return one_pass_feeds(self.rows, embeddings, self.answer_rows, window)


@dataclass(frozen=True, slots=True)
class _NoHead:
    """In place of the vocabulary projection, which no layer reads."""

    shape: tuple[int, ...]

    def read(self, *index: slice) -> Array:
        return np.zeros(self.shape, np.float32)[index]


class FloatDecoder:
    """Reads passages layer by layer."""

    def __init__(self, checkpoint: Checkpoint, passages: Sequence[Passage], scratch: Path) -> None:
        """Name what to read.

        Args:
            checkpoint: to run
            passages: what it reads
            scratch: folder for one layer in float32 at a time, 0.4 GB for 4B
        """
        self._checkpoint = checkpoint
        self._passages = passages
        self._scratch = scratch
        self._streams = [passage.embeddings for passage in passages]

    def layers(self) -> Iterator[dict[str, Gram]]:
        """Run every layer; after each, the second moments of the inputs of its linear layers.

        They are named as in a float32 engine. Passages that are held out have no part in them.

        Raises:
            CheckpointError: a weight is not finite, or what is computed with it is not.
        """
        for index in range(self._checkpoint.text.layers):
            stages = _write_layer(self._checkpoint, index, self._scratch)
            found = self._run(index, stages, stages.stage(0))
            yield {name.replace(".0.", f".{index}.", 1): gram for name, gram in found.items()}

    def logits(self) -> Array:
        """[answer rows of the held-out passages, vocabulary], when `layers` has come to its end."""
        text, tensors = self._checkpoint.text, self._checkpoint.tensors
        pairs = zip(self._streams, self._passages, strict=True)
        rows = np.concatenate([s[p.answer_rows] for s, p in pairs if p.is_held_out])
        mean_square = np.square(rows, dtype=np.float64).mean(axis=-1, keepdims=True)
        normed = (rows / np.sqrt(mean_square + text.rms_norm_eps)).astype(np.float32)
        normed *= 1 + tensors["text.norm.weight"].read()
        logits = np.empty((len(rows), text.vocabulary), np.float32)
        for first in range(0, text.vocabulary, HEAD_ROWS):
            part = slice(first, min(first + HEAD_ROWS, text.vocabulary))
            logits[:, part] = normed @ self._checkpoint.head.read(part).T
        return logits

    def _run(self, index: int, stages: GraphStages, stage: Stage) -> dict[str, Gram]:
        """One layer over every passage."""
        session = StageSession(stage, self._scratch)
        grams = {
            linear.name: Gram.empty(stages.weight(linear.weight).shape[0])
            for linear in stage.linears
        }
        wanted = [stage.stream_output, *(linear.input for linear in stage.linears)]
        for number, passage in enumerate(self._passages):
            feeds = _feeds(self._checkpoint, passage, self._streams[number])
            values = session.run(feeds, wanted)
            _require_numbers(index, values)
            self._streams[number] = values[stage.stream_output][0].astype(np.float32)
            if passage.is_held_out:
                continue
            for linear in stage.linears:
                rows = values[linear.input][0].astype(np.float32)
                grams[linear.name] = grams[linear.name].plus(rows)
        return grams


def _require_numbers(layer: int, values: Mapping[str, NDArray[np.generic]]) -> None:
    for name, array in values.items():
        largest = float(np.abs(array.astype(np.float32)).max(initial=0))
        if not largest <= LARGEST_ACTIVATION:
            raise CheckpointError(
                f"the float model reaches {largest:g} at '{name}' of layer {layer}, expected at most "
                f"{LARGEST_ACTIVATION:g}: its weights are damaged, download the checkpoint again"
            )


def _write_layer(checkpoint: Checkpoint, index: int, scratch: Path) -> GraphStages:
    """The decoder graph of one layer alone."""
    text = checkpoint.text
    prefix = f"text.layers.{index}."
    tensors: dict[str, Tensor] = {
        name.replace(prefix, "text.layers.0."): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(prefix)
    }
    tensors["text.norm.weight"] = checkpoint.tensors["text.norm.weight"]
    tensors[EMBEDDING] = checkpoint.tensors[EMBEDDING]
    tensors[HEAD] = _NoHead((1, text.hidden_size))
    alone = replace(
        checkpoint,
        text=replace(text, layers=1, layer_is_global=(text.layer_is_global[index],)),
        tensors=tensors,
    )
    graph = DecoderWriter(alone, OrtDialect(), lambda _: FLOAT32).write()
    write_bytes(scratch / "decoder.onnx", graph.serialize("decoder.data"))
    write_data(scratch / "decoder.data", graph.blobs, lambda _: None)
    return GraphStages(scratch, "decoder")


def _feeds(
    checkpoint: Checkpoint, passage: Passage, stream: Array
) -> dict[str, NDArray[np.generic]]:
    text = checkpoint.text
    empty = np.zeros((1, text.kv_heads, len(passage.ids), text.head_dim), np.float32)
    caches = {"past_key.0": empty, "past_value.0": empty}
    return passage.feeds(stream, text.sliding_window) | caches
