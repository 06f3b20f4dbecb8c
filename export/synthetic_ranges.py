"""Ranges of a vision tower's activations on one synthetic image.

Enough to give random weights the int8 tower that a calibrated engine has, and its speed. For
trained weights it would be a guess: their ranges come from `calibrate`, on real slices.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.passes.layer_runner import GraphStages, StageSession
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.graphs.ort_dialect import OrtDialect
from edge_medgemma.export.graphs.vision import VisionWriter
from edge_medgemma.export.graphs.weights import FLOAT32
from edge_medgemma.export.graphs.writer import write_bytes, write_data
from edge_medgemma.runtime.backends.self_test.test_image import synthetic_pixel_values
from edge_medgemma.runtime.files import write_errors


def synthetic_vision_ranges(
    checkpoint: Checkpoint, scratch: Path, on_layer: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """Largest magnitude of the input of every linear layer of the tower's layers.

    Args:
        checkpoint: read as float32
        scratch: folder that takes the float32 tower for as long as this runs (1.7 GB for 4B)
        on_layer: called with layers done and layers in all

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
            return _layer_by_layer(checkpoint, folder, on_layer)


def _layer_by_layer(
    checkpoint: Checkpoint, folder: Path, on_layer: Callable[[int, int], None] | None
) -> dict[str, float]:
    stages = GraphStages(folder, "vision")
    layers = len(stages) - 1
    feeds: dict[str, NDArray[np.generic]] = {
        "pixel_values": synthetic_pixel_values(checkpoint.vision)
    }
    ranges: dict[str, float] = {}
    for index in range(layers):
        stage = stages.stage(index)
        inputs = [linear.input for linear in stage.linears]
        session = StageSession(stage, folder)
        values = session.run(feeds, [stage.stream_output, *inputs])
        for linear in stage.linears:
            ranges[linear.name] = float(np.abs(values[linear.input]).max())
        feeds = {stage.stream_output: values[stage.stream_output]}
        if on_layer is not None:
            on_layer(index + 1, layers)
    return ranges
