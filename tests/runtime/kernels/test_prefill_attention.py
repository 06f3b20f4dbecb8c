"""Attention of a prompt is the formula's; what is not computed here onnxruntime does, to the last bit."""

from dataclasses import replace

import numpy as np
import pytest
from support.grouped_attention import (
    KINDS,
    Case,
    attended,
    check_that_it_is_onnxruntimes,
    drawn,
    reference,
)

from edge_medgemma.runtime.backends.onnxruntime.custom_ops import cpu_kernels
from edge_medgemma.runtime.generation.masks import HIDDEN

needs_attention = pytest.mark.skipif(cpu_kernels is None, reason="this installation has no kernels")
LIBRARY = cpu_kernels and cpu_kernels.__file__
"""Not `custom_ops_library`, which is None where the kernel is wrong."""

LIMITS = {"amx": 2**-7}
OTHER_LIMIT = 2**-10
"""Of the norm: rounding to bfloat16, in tiles, or to int16 leaves a third to a half of it."""

STEEP_LIMIT = 2**-4
"""Of scores of 9, which bfloat16 moves by a hundredth and more."""


def compare(given: np.ndarray, expected: np.ndarray, limit: float | None = None) -> None:
    difference = np.abs(given - expected)
    relative = np.linalg.norm(difference) / np.linalg.norm(expected)
    figures = f"max {difference.max():.2e}, mean {difference.mean():.2e}, {relative=:.2e}"
    assert relative < (limit or LIMITS.get(cpu_kernels.level_in_use(), OTHER_LIMIT)), figures


CASES = [
    Case(48, 48),
    Case(60, 300, heads=3, kv_heads=1, size=72),
    Case(129, 257, heads=2, kv_heads=2, size=8),
    Case(100, 1000, heads=8, kv_heads=4, size=256),
]


@needs_attention
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_formula(case):
    arrays = drawn(case)
    before = {name: array.copy() for name, array in arrays.items()}
    given = attended(case, arrays, LIBRARY)
    compare(given, reference(case, arrays))
    for kind in KINDS:
        cache, past = arrays[f"past_{kind}"], before[f"past_{kind}"]
        first = case.total - case.rows
        new = before[kind].reshape(case.rows, case.kv_heads, case.size).transpose(1, 0, 2)
        np.testing.assert_array_equal(cache[0, :, first : case.total], new)
        np.testing.assert_array_equal(cache[:, :, :first], past[:, :, :first])
        np.testing.assert_array_equal(cache[:, :, case.total :], past[:, :, case.total :])


@needs_attention
@pytest.mark.parametrize("kind", ["window", "image", "branches", "added"])
def test_masks(kind):
    case = Case(150, 700)
    arrays = drawn(case)
    mask = arrays["mask"][0, 0]
    if kind == "window":
        mask[np.tri(150, 700, 700 - 150 - 130, dtype=np.bool_)] = HIDDEN
    elif kind == "image":
        mask[20:140, 570:690] = 0
    elif kind == "branches":
        mask[::2, 100:260] = HIDDEN  # a block and parts of two, for some queries of every group
    else:
        mask += np.random.default_rng(0).standard_normal(mask.shape, np.float32)
    assert (mask.max(axis=1) > HIDDEN / 2).all()
    given = attended(case, arrays, LIBRARY)
    compare(given, reference(case, arrays))


@needs_attention
def test_the_scale_is_the_nodes():
    case = Case(50, 130, attributes=(("scale", 0.7),))
    arrays = drawn(case)
    compare(attended(case, arrays, LIBRARY), reference(case, arrays, 0.7))


@needs_attention
@pytest.mark.parametrize(
    "case",
    [
        Case(47, 300),
        Case(60, 300, is_int8=True),
        Case(60, 300, has_sink=True),
        Case(60, 300, attributes=(("causal", 1),)),
        Case(60, 300, attributes=(("softcap", 2.0),)),
        Case(60, 300, attributes=(("causal", 1), ("local_window_size", 20))),
    ],
    ids=str,
)
def test_what_it_does_not_compute_is_onnxruntimes(case):
    check_that_it_is_onnxruntimes(case, LIBRARY)


@needs_attention
def test_caches_elsewhere_are_onnxruntimes():
    case = Case(60, 300)
    given = attended(case, drawn(case), LIBRARY, in_place=False)
    np.testing.assert_array_equal(given, attended(case, drawn(case), None, in_place=False))


@needs_attention
def test_threads_and_rows_beside_a_row_change_nothing():
    case = Case(110, 400)
    arrays = drawn(case)
    expected = attended(case, arrays, LIBRARY, threads=1)
    for threads in (2, 3):
        given = attended(case, drawn(case), LIBRARY, threads=threads)
        np.testing.assert_array_equal(given, expected)
    last = replace(case, rows=57)
    part = {**arrays, "mask": np.ascontiguousarray(arrays["mask"][:, :, -57:])}
    part |= {
        name: np.ascontiguousarray(arrays[name][:, -57:]) for name in ("query", "key", "value")
    }
    given = attended(last, part, LIBRARY)
    difference = np.abs(given - expected[-57:]).max()
    assert difference < 1e-6, difference  # a block that only others see rounds once more


@needs_attention
def test_steep_scores_take_the_value_of_one_key():
    """Scores of +-3000: exponentials that no float holds. Later blocks bring higher maxima."""
    case = Case(64, 500, heads=1, kv_heads=1, size=8)
    arrays = drawn(case)
    arrays["mask"][:] = 0
    arrays["query"][:] = 0
    arrays["query"][..., 0] = 64
    arrays["past_key"][0, 0, :500, 0] = np.linspace(-100, 100, 500)
    arrays["past_value"][0, 0, :500, 0] = np.arange(500) % 128
    arrays["key"][0] = arrays["past_key"][0, 0, 436:500]
    arrays["value"][0] = arrays["past_value"][0, 0, 436:500]
    given = attended(case, arrays, LIBRARY)
    assert (
        np.abs(given[:, 0] - 499 % 128).max() < 115 * 2**-11
    )  # half a step of the channel's values


@needs_attention
def test_what_is_not_a_number_stays_in_its_row():
    case = Case(64, 300)
    arrays = drawn(case)
    arrays["query"][0, 10, 3] = np.nan
    given = attended(case, arrays, LIBRARY)
    assert np.isnan(given[10, : case.size]).all()
    given[10, : case.size] = 0
    assert np.isfinite(given).all()


@needs_attention
def test_a_key_that_is_not_a_number_stays_in_its_head():
    case = Case(64, 300)
    arrays = drawn(case)
    arrays["past_key"][0, 0, 100, 3] = np.nan
    given = attended(case, arrays, LIBRARY).reshape(64, 2, -1)
    assert np.isnan(given[:, 0]).all()
    assert np.isfinite(given[:, 1]).all()


@needs_attention
def test_many_keys_far_below_one_have_their_weight():
    """Four thousand weights of e^-9 are half of what the one above them weighs."""
    case = Case(48, 4000, heads=1, kv_heads=1, size=8)
    arrays = drawn(case)
    arrays["query"][:] = 1
    for name in ("past_key", "key"):
        arrays[name][:] = 0
    arrays["past_key"][0, 0, 2000] = 9 / 8**0.5
    arrays["mask"][:] = 0
    compare(attended(case, arrays, LIBRARY), reference(case, arrays), STEEP_LIMIT)


@needs_attention
def test_a_row_that_sees_nothing_is_not_a_number():
    """Nor does it change the rows beside it."""
    half = (
        96  # queries are taken by 12, 16, 24 or 32: those of a row that sees something are others
    )
    case = Case(2 * half, 300, heads=1, kv_heads=1)
    arrays = drawn(case)
    arrays["mask"][0, 0, half:] = HIDDEN
    given = attended(case, arrays, LIBRARY)
    assert np.isnan(given[half:]).all()
    assert np.isfinite(given[:half]).all()
