"""4-bit blocks: the searched step beats the one that just reaches the largest weight."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from edge_medgemma.export.graphs.rounding import quantize_blocks, round_int4, searched_step

GENERATOR = np.random.default_rng(0)
VALUES = GENERATOR.standard_t(5, (257, 192)).astype(np.float32)
IMPORTANCE = np.exp(GENERATOR.normal(0, 2, 192)).astype(np.float32)


def restored(values, block_size, **choices):
    integers, scales = quantize_blocks(values, "int4", block_size, **choices)
    assert integers.min() >= -8 and integers.max() <= 7
    return integers * np.repeat(scales, block_size, axis=1), scales


def nearest(values, block_size):
    """Symmetric around zero, the largest weight at 7."""
    blocks = values.reshape(len(values), -1, block_size)
    steps = np.abs(blocks).max(axis=-1, keepdims=True) / 7
    return (np.rint(blocks / steps) * steps).reshape(values.shape)


@pytest.mark.parametrize("block_size", [32, 64])
@pytest.mark.parametrize("is_signed", [True, False])
def test_the_search_beats_nearest(block_size, is_signed):
    found, scales = restored(VALUES, block_size, is_signed=is_signed)
    error = np.square(found - VALUES).sum() / np.square(nearest(VALUES, block_size) - VALUES).sum()
    print(f"error of the search over that of nearest: {error:.3f}")
    assert error < (0.85 if is_signed else 0.95)
    assert is_signed == bool((scales < 0).any())


def test_without_a_search_the_largest_weight_of_a_block_is_kept():
    found, _ = restored(VALUES, 32, is_searched=False)
    blocks = VALUES.reshape(-1, 32)
    places = np.abs(blocks).argmax(axis=1)
    rows = np.arange(len(blocks))
    relative = np.abs(found.reshape(-1, 32)[rows, places] / blocks[rows, places] - 1)
    assert relative.max() < 0.07, f"max {relative.max():.3f}, mean {relative.mean():.3f}"


def test_what_matters_is_rounded_best():
    blocks = VALUES.reshape(len(VALUES), -1, 64)
    weights = IMPORTANCE.reshape(-1, 64)
    errors = []
    for importance in (weights, None):
        step = searched_step(blocks, importance)
        difference = round_int4(blocks, step) * step - blocks
        errors.append(float((np.square(difference) * weights).sum()))
    print(f"weighted error {errors[0]:.1f} with importance, {errors[1]:.1f} without")
    assert errors[0] < 0.9 * errors[1]


def test_no_step_between_the_shares_is_much_better():
    """Against every step of a fine grid, on few weights."""
    blocks = VALUES[:8, :32]
    found = searched_step(blocks, None)
    error = np.square(round_int4(blocks, found) * found - blocks).sum(axis=1)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    best = np.full(len(blocks), np.inf)
    for share, sign in itertools.product(np.linspace(0.5, 1.2, 400), (-1, 1)):
        step = (sign * largest / 8 * share).astype(np.float32)
        best = np.minimum(best, np.square(round_int4(blocks, step) * step - blocks).sum(axis=1))
    assert (error < 1.25 * best).all(), f"worst {(error / best).max():.3f}"


@pytest.mark.parametrize("value", [0.0, 1e-44, -1e-44, 1e-38, 3e38, -3e38])
def test_blocks_at_the_ends_of_the_range_stay_finite(value):
    integers, scales = quantize_blocks(np.full((2, 32), value, np.float32), "int4", 32)
    assert np.isfinite(scales).all() and (scales != 0).all()
    back = integers * scales
    assert np.isfinite(back).all()
    assert np.abs(back - np.float32(value)).max() <= max(abs(value) * 0.08, 1e-37)


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_scales_are_bfloat16_and_integers_are_the_nearest_for_them(kind):
    values = np.random.default_rng(0).standard_normal((40, 128), np.float32)
    integers, scales = quantize_blocks(values, kind, 32)
    np.testing.assert_array_equal(scales.astype(ml_dtypes.bfloat16).astype(np.float32), scales)
    steps = values / np.repeat(scales, 32, axis=1)
    lowest, highest = (-8, 7) if kind == "int4" else (-127, 127)
    np.testing.assert_array_equal(integers, np.clip(np.rint(steps), lowest, highest))
