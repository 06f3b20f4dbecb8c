"""A checkpoint's vision tower in float32, for as long as its features or ranges are asked for."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.passes.layer_runner import GraphStages, StageSession
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.graphs.ort_dialect import OrtDialect
from edge_medgemma.export.graphs.vision import VisionWriter
from edge_medgemma.export.graphs.weights import FLOAT32
from edge_medgemma.export.graphs.writer import write_bytes, write_data
from edge_medgemma.runtime.files import write_errors


@contextmanager
def float_vision(checkpoint: Checkpoint, scratch: Path) -> Iterator[GraphStages]:
    """The float32 tower in a folder of its own in `scratch` (1.7 GB for 4B), deleted at the end.

    Raises:
        ResourceError: the disk is full or `scratch` cannot be written.
    """
    with write_errors(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".float-vision.") as name:
            folder = Path(name)
            graph = VisionWriter(checkpoint, OrtDialect(), lambda _: FLOAT32).write()
            write_bytes(folder / "vision.onnx", graph.serialize("vision.data"))
            write_data(folder / "vision.data", graph.blobs, lambda _: None)
            yield GraphStages(folder, "vision")


def float_features(
    checkpoint: Checkpoint, pixel_values: NDArray[np.float32], scratch: Path
) -> NDArray[np.float32]:
    """Image tokens [N, tokens_per_image, hidden] of pixel values [N, 3, image_size, image_size].

    Raises:
        ResourceError: the disk is full or `scratch` cannot be written.
    """
    with float_vision(checkpoint, scratch) as stages:
        streams: list[NDArray[np.generic]] = [one[None] for one in pixel_values]
        for index in range(len(stages)):
            stage = stages.stage(index)
            session = StageSession(stage, stages.directory)
            name, wanted = stage.stream_input or "pixel_values", stage.stream_output
            streams = [session.run({name: one}, [wanted])[wanted] for one in streams]
        return np.concatenate(streams).astype(np.float32)
