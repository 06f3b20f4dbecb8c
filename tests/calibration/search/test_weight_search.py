"""Searched integers must beat round-to-nearest where it counts: on inputs not seen before."""

import numpy as np
import pytest

from edge_medgemma.calibration.search.gram import BLOCK_WIDTH, Gram
from edge_medgemma.calibration.search.smoothing import choose_activation
from edge_medgemma.calibration.search.weight_search import dequantize, gptq

INPUTS, OUTPUTS, BLOCK, LARGEST = 128, 64, 32, 7
LIMITS = (-LARGEST, LARGEST)


def rounding(weight, importance=None):
    blocks = weight.reshape(-1, BLOCK, weight.shape[1])
    steps = np.maximum(np.abs(blocks).max(axis=1) / np.float32(LARGEST), 1e-12)
    integers = np.clip(np.rint(blocks / steps[:, None]), -LARGEST, LARGEST).astype(np.int8)
    return integers.reshape(weight.shape), steps


@pytest.fixture
def problem():
    """Correlated inputs with a few large channels, as activations are; half to learn from."""
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(24, INPUTS)) + 0.3 * generator.normal(size=(24, INPUTS))
    rows = generator.normal(size=(4000, 24)) @ mixing + generator.normal(size=(4000, INPUTS))
    rows[:, ::16] *= 8
    weight = generator.normal(size=(INPUTS, OUTPUTS)).astype(np.float32)
    rows = rows.astype(np.float32)
    return Gram.empty(INPUTS).plus(rows[:2000]), rows[2000:], weight


def output_error(rows, restored, weight):
    return float(np.square(rows @ (restored - weight)).sum() / np.square(rows @ weight).sum())


def test_gptq_beats_nearest(problem):
    gram, rows, weight = problem
    plain = output_error(rows, dequantize(*rounding(weight)), weight)
    searched = output_error(rows, dequantize(*gptq(gram, weight, rounding, LIMITS, BLOCK)), weight)
    print(f"nearest {plain:.2e} GPTQ {searched:.2e}")
    assert searched < 0.6 * plain


def test_gptq_with_white_inputs_is_no_worse_than_nearest():
    gram = Gram(np.eye(INPUTS, dtype=np.float32)[None], 1)
    weight = np.random.default_rng(1).normal(size=(INPUTS, OUTPUTS)).astype(np.float32)
    searched = gptq(gram, weight, rounding, LIMITS, BLOCK)
    assert gram.error(dequantize(*searched) - weight) <= gram.error(
        dequantize(*rounding(weight)) - weight
    )


def test_gptq_with_dead_channels_stays_finite(problem):
    gram, _, weight = problem
    blocks = gram.blocks.copy()
    blocks[0, 5] = blocks[0, :, 5] = 0
    integers, steps = gptq(Gram(blocks, gram.rows), weight, rounding, LIMITS, BLOCK)
    assert np.isfinite(steps).all()
    assert np.abs(integers).max() <= LARGEST


def test_few_rows_stored_in_half_precision_still_factor():
    """Fewer rows than channels, all alike: what is stored is not even positive."""
    generator = np.random.default_rng(4)
    common = generator.normal(size=(40, 1)) * generator.uniform(0.1, 30, (1, 512))
    rows = (common + 1e-3 * generator.normal(size=(40, 512))).astype(np.float32)
    gram = Gram.unpacked(Gram.empty(512).plus(rows).packed())
    weight = generator.normal(size=(512, OUTPUTS)).astype(np.float32)
    integers, steps = gptq(gram, weight, rounding, LIMITS, BLOCK)
    assert np.isfinite(steps).all()
    assert np.abs(integers).max() <= LARGEST


def test_blocks_larger_than_a_stretch_see_its_updates():
    """128 rows make a stretch; a block of 256 reaches beyond it."""
    generator = np.random.default_rng(2)
    rows = (generator.normal(size=(3000, 16)) @ generator.normal(size=(16, 256))).astype(np.float32)
    weight = generator.normal(size=(256, 32)).astype(np.float32)

    def wide(values, importance=None):
        steps = np.abs(values).max(axis=0, keepdims=True) / np.float32(LARGEST)
        return np.rint(values / steps).astype(np.int8), steps

    gram = Gram.empty(256).plus(rows)
    searched = gram.error(dequantize(*gptq(gram, weight, wide, LIMITS, 256)) - weight)
    assert searched < 0.5 * gram.error(dequantize(*wide(weight)) - weight)


def test_gram_error_is_the_output_error(problem):
    _, rows, weight = problem
    difference = weight * 0.1
    expected = np.square(rows @ difference).sum()
    assert Gram.empty(INPUTS).plus(rows).error(difference) == pytest.approx(expected, rel=1e-4)


def test_packing_a_gram_keeps_it(problem):
    gram, _, _ = problem
    again = Gram.unpacked(gram.packed())
    scale = np.sqrt(np.outer(*2 * [np.diagonal(gram.blocks[0])]))
    assert (np.abs(again.blocks - gram.blocks)[0] <= 6e-4 * scale).all()
    assert again.rows == gram.rows


def test_wide_inputs_keep_blocks_on_the_diagonal():
    assert Gram.empty(4 * BLOCK_WIDTH).blocks.shape == (4, BLOCK_WIDTH, BLOCK_WIDTH)


def test_smoothing_helps_where_a_channel_is_large():
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(512, INPUTS)).astype(np.float32)
    rows[:, 7] *= 60
    weight = generator.normal(size=(INPUTS, OUTPUTS)).astype(np.float32)
    largest = np.abs(rows).max(axis=0)
    smooth = choose_activation(rows, largest, weight, can_smooth=True)
    fixed = choose_activation(rows, largest, weight, can_smooth=False)
    assert smooth.exponent > 0
    assert smooth.error < 0.25 * smooth.plain_error
    assert (fixed.scale == 1).all()
    assert smooth.error <= fixed.error <= fixed.plain_error
