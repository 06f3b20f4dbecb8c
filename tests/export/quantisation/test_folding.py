"""Folds change the tensors and not the model."""

import dataclasses

import numpy as np
import pytest

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import write_engine
from edge_medgemma.export.quantisation.folding import scale_residual, smooth_vision
from edge_medgemma.export.quantisation.quant_scheme import plan_export
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.prefill import prefill_slices

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)


@pytest.fixture
def outputs(tmp_path):
    """Image features and logits of a float32 engine of a checkpoint."""

    def run(checkpoint, name, scale=1.0):
        folder = tmp_path / name
        folder.mkdir()
        plan = dataclasses.replace(plan_export(checkpoint, "fp32", 32), residual_scale=scale)
        write_engine(plan, folder, None, None)
        with Engine.open(folder, threads=1) as engine:
            features = engine.encode_images(PIXELS)
            prefix = prefill_slices(engine, "Look.", len(features), features)
            return features * scale, prefix.score([engine.prompt.question("Is it?")])

    return run


class FakeCalibration:
    """Scales that would show any misplaced factor."""

    def __init__(self, checkpoint):
        self._checkpoint = checkpoint
        self._generator = np.random.default_rng(1)

    def smoothing(self, linear):
        return self._scale(self._checkpoint.vision.hidden_size)

    def _scale(self, width):
        return self._generator.uniform(0.25, 4, width).astype(np.float32)


def assert_same(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        difference = np.abs(one - other)
        limit = 2e-5 * np.abs(other).max()
        assert difference.max() < limit, f"max {difference.max():.1e} mean {difference.mean():.1e}"


def test_smoothing_the_vision_tower_changes_nothing(tiny_checkpoint, outputs):
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    smoothed = smooth_vision(checkpoint, FakeCalibration(checkpoint))
    name = "vision.encoder.layers.1.layer_norm2.weight"
    assert not np.allclose(smoothed.tensors[name].read(), checkpoint.tensors[name].read())
    assert_same(outputs(smoothed, "smoothed"), outputs(checkpoint, "plain"))


def test_scaling_the_residual_changes_nothing(tiny_checkpoint, outputs):
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    scaled = scale_residual(checkpoint, 64.0)
    assert scaled.text.embed_scale == checkpoint.text.embed_scale / 64
    assert_same(outputs(scaled, "scaled", 64.0), outputs(checkpoint, "plain"))


def test_without_the_epsilon_the_residual_scale_would_show(tiny_checkpoint, outputs):
    """eps is scaled with the stream: with small activations and a large eps it decides."""
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    text = dataclasses.replace(checkpoint.text, rms_norm_eps=0.5)
    checkpoint = dataclasses.replace(checkpoint, text=text)
    expected = outputs(checkpoint, "plain")
    scaled = scale_residual(checkpoint, 64.0)
    assert_same(outputs(scaled, "right", 64.0), expected)
    folder_scale_one = outputs(scaled, "wrong", 1.0)
    assert np.abs(folder_scale_one[1] - expected[1]).max() > 1e-3
