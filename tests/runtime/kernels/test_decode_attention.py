"""Attention of a token of an answer, over caches in bytes or float32, is the formula's and onnxruntime's."""

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

needs_kernel = pytest.mark.skipif(
    cpu_kernels is None or not cpu_kernels.claimed_levels(),
    reason="this processor, or installation, has no kernels for the decoder",
)
LIBRARY = cpu_kernels and cpu_kernels.__file__
"""Not `custom_ops_library`, which is None where the kernel is wrong."""

LIMIT = 1e-5
"""Of the largest number: sums in float32 leave 2e-6. Rounding a score or a weight to 16 bits leaves
more."""

CASES = [
    case
    for is_int8 in (False, True)
    for case in (
        Case(1, 1, is_int8=is_int8),
        Case(1, 7, heads=2, kv_heads=2, size=16, is_int8=is_int8),
        Case(1, 512, heads=3, kv_heads=1, size=64, is_int8=is_int8),
        Case(1, 513, heads=8, kv_heads=4, size=256, is_int8=is_int8),
        Case(1, 1999, heads=10, kv_heads=2, size=144, is_int8=is_int8),
    )
]


def compare(given: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(given - expected)
    largest = np.abs(expected).max()
    figures = f"max {difference.max():.2e}, mean {difference.mean():.2e}, of {largest:.2e}"
    assert difference.max() < LIMIT * largest, figures


@needs_kernel
@pytest.mark.parametrize("spare", [0, 21], ids="spare={}".format)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_formula_and_leaves_the_caches_that_onnxruntime_leaves(case, spare):
    ours, own = drawn(case, spare), drawn(case, spare)
    before = {kind: own[f"past_{kind}"].copy() for kind in KINDS}
    given = attended(case, ours, LIBRARY)
    compare(given, attended(case, own, None))
    compare(given, reference(case, ours))
    for kind in KINDS:
        past = f"past_{kind}"
        np.testing.assert_array_equal(ours[past], own[past], err_msg=past)
        new = np.arange(case.total + spare) == case.total - 1
        np.testing.assert_array_equal(ours[past][:, :, ~new], before[kind][:, :, ~new])


@needs_kernel
def test_it_is_what_computes():
    """Sums in another order give other bits."""
    case = CASES[-1]
    given = attended(case, drawn(case), LIBRARY)
    assert (given != attended(case, drawn(case), None)).any()


@needs_kernel
@pytest.mark.parametrize("is_int8", [False, True])
@pytest.mark.parametrize("kind", ["window", "hole", "last", "added"])
def test_masks(kind, is_int8):
    case = Case(1, 1500, is_int8=is_int8)
    arrays = drawn(case)
    mask = arrays["mask"][0, 0, 0]
    if kind == "window":
        mask[:1100] = HIDDEN  # two spans and a part of the third
    elif kind == "hole":
        mask[3:1490:2] = HIDDEN
    elif kind == "last":
        mask[:-1] = HIDDEN
    else:
        mask += np.random.default_rng(0).standard_normal(mask.shape, np.float32)
    given = attended(case, arrays, LIBRARY)
    compare(given, reference(case, arrays))


@needs_kernel
@pytest.mark.parametrize("is_int8", [False, True])
def test_the_scale_is_the_nodes(is_int8):
    case = Case(1, 130, is_int8=is_int8, attributes=(("scale", 0.7),))
    arrays = drawn(case)
    compare(attended(case, arrays, LIBRARY), reference(case, arrays, 0.7))


@needs_kernel
def test_new_rows_beyond_the_range_are_clipped():
    case = Case(1, 40, is_int8=True)
    ours, own = drawn(case), drawn(case)
    for arrays in (ours, own):
        arrays["key"][0, 0, :3] = 1e3, -1e3, 3e38
    compare(attended(case, ours, LIBRARY), attended(case, own, None))
    np.testing.assert_array_equal(ours["past_key"], own["past_key"])


@needs_kernel
@pytest.mark.parametrize(
    "case",
    [
        Case(2, 300, is_int8=True),
        Case(1, 300, size=24, is_int8=True),
        Case(1, 300, heads=2, kv_heads=1, size=272, is_int8=True),
        Case(1, 300, is_int8=True, has_sink=True),
        Case(1, 300, is_int8=True, attributes=(("causal", 1),)),
        Case(1, 300, is_int8=True, attributes=(("softcap", 2.0),)),
        Case(2, 300),
        Case(1, 300, size=24),
    ],
    ids=str,
)
def test_what_it_does_not_compute_is_onnxruntimes(case):
    check_that_it_is_onnxruntimes(case, LIBRARY)


@needs_kernel
@pytest.mark.parametrize("case", [CASES[4], CASES[-1]], ids=str)
def test_threads_change_nothing(case):
    expected = attended(case, drawn(case), LIBRARY, threads=1)
    for threads in (2, 3):
        given = attended(case, drawn(case), LIBRARY, threads=threads)
        np.testing.assert_array_equal(given, expected)


@needs_kernel
def test_steep_scores_take_the_value_of_one_key():
    """Scores of +-3000: exponentials that no float holds. Later spans bring higher maxima."""
    case = Case(1, 1200, heads=1, kv_heads=1, size=16, is_int8=True)
    arrays = drawn(case)
    arrays["query"][:] = 0
    arrays["query"][..., 0] = 4000
    arrays["past_key"][0, 0, :1200, 0] = np.linspace(-100, 100, 1200)
    arrays["past_value"][0, 0, :1200, 0] = np.arange(1200) % 90
    arrays["key"][0, 0, 0] = 126 * arrays["key_step"][0]
    arrays["value"][0, 0, 0] = 55 * arrays["value_step"][0]
    given = attended(case, arrays, LIBRARY)[0, 0]
    assert abs(given / arrays["value_step"][0] - 55) < 1e-3


@needs_kernel
@pytest.mark.parametrize("is_int8", [False, True])
def test_what_is_not_a_number_stays_in_its_head(is_int8):
    case = Case(1, 700, is_int8=is_int8)
    arrays = drawn(case)
    arrays["query"][0, 0, case.size + 3] = np.nan
    given = attended(case, arrays, LIBRARY)[0].reshape(case.heads, case.size)
    assert np.isnan(given[1]).all()
    assert np.isfinite(np.delete(given, 1, axis=0)).all()


@needs_kernel
@pytest.mark.parametrize("place", [0, 100, 639, 699])
def test_a_key_that_is_not_a_number_stays_in_its_head(place):
    case = Case(1, 700)
    arrays = drawn(case)
    arrays["past_key"][0, 1, place, 3] = np.nan
    arrays["key"][0, 0, case.size + 3] = np.nan if place == 699 else 0
    given = attended(case, arrays, LIBRARY)[0].reshape(case.heads, case.size)
    shared = case.heads // case.kv_heads
    assert np.isnan(given[shared:]).all()
    assert np.isfinite(given[:shared]).all()


@needs_kernel
@pytest.mark.parametrize("is_int8", [False, True])
def test_a_row_that_sees_nothing_is_not_a_number(is_int8):
    case = Case(1, 700, is_int8=is_int8)
    arrays = drawn(case)
    arrays["mask"][:] = HIDDEN
    assert np.isnan(attended(case, arrays, LIBRARY)).all()
