"""Ranges of a vision tower's activations on one synthetic image.

Enough to give random weights the int8 tower that a calibrated engine has, and its speed. For
trained weights it would be a guess: their ranges come from `calibrate`, on real slices.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.passes.layer_runner import GraphStages, StageSession
from edge_medgemma.export.checkpoint.checkpoint import Checkpoint
from edge_medgemma.export.float_vision import float_vision
from edge_medgemma.runtime.backends.self_test.test_image import synthetic_pixel_values


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
    with float_vision(checkpoint, scratch) as stages:
        return _layer_by_layer(checkpoint, stages, on_layer)


def _layer_by_layer(
    checkpoint: Checkpoint, stages: GraphStages, on_layer: Callable[[int, int], None] | None
) -> dict[str, float]:
    layers = len(stages) - 1
    feeds: dict[str, NDArray[np.generic]] = {
        "pixel_values": synthetic_pixel_values(checkpoint.vision)
    }
    ranges: dict[str, float] = {}
    for index in range(layers):
        stage = stages.stage(index)
        inputs = [linear.input for linear in stage.linears]
        session = StageSession(stage, stages.directory)
        values = session.run(feeds, [stage.stream_output, *inputs])
        for linear in stage.linears:
            ranges[linear.name] = float(np.abs(values[linear.input]).max())
        feeds = {stage.stream_output: values[stage.stream_output]}
        if on_layer is not None:
            on_layer(index + 1, layers)
    return ranges
