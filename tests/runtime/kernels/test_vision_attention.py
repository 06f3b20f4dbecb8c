"""Attention of the vision tower is the formula, at each level."""

import numpy as np
import pytest

from edge_medgemma.runtime.kernels.level import cpu_kernels

SHAPES = pytest.mark.parametrize(
    ("rows", "heads", "size"),
    [(64, 4, 72), (2, 1, 5), (49, 2, 16), (127, 1, 64), (129, 3, 80), (1100, 2, 33), (40, 1, 256)],
)


def drawn(rows: int, heads: int, size: int) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, 3 * heads * size), np.float32)


def attended(joined: np.ndarray, heads: int, may_be_bytes: bool = False) -> np.ndarray:
    rows, width = len(joined), joined.shape[1] // 3
    out = np.full((rows, width), np.nan, np.float32)
    packed = np.empty(cpu_kernels.vision_packed_words(rows, heads, width // heads), np.uint32)
    threads = cpu_kernels.vision_threads(2)
    shape = rows, heads, width // heads
    cpu_kernels.vision_attend(threads, joined, *shape, out, packed, may_be_bytes)
    return out


def reference(joined: np.ndarray, heads: int) -> np.ndarray:
    """The formula in float64."""
    rows = len(joined)
    query, key, value = (
        part.reshape(rows, heads, -1).transpose(1, 0, 2).astype(np.float64)
        for part in np.split(joined, 3, axis=1)
    )
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[2])
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    return (weights @ value).transpose(1, 0, 2).reshape(rows, -1)


def compare(joined: np.ndarray, heads: int, limit: float) -> None:
    expected = reference(joined, heads)
    difference = np.abs(attended(joined, heads) - expected)
    relative = np.linalg.norm(difference) / np.linalg.norm(expected)
    figures = f"max {difference.max():.2e}, mean {difference.mean():.2e}, {relative=:.2e}"
    assert relative < limit, figures


@SHAPES
def test_it_is_softmax_attention(rows, heads, size, level):
    """Tiles of AMX are of bfloat16."""
    compare(drawn(rows, heads, size), heads, 2**-8 if level == "amx" else 2**-10)


@SHAPES
def test_bytes_are_taken_where_they_suffice(rows, heads, size, level):
    """Of the first head scores are small; those of the others int8 would move by more than 0.05."""
    joined = drawn(rows, heads, size).reshape(rows, 3, heads, size)
    joined[:, :2, 0] *= 1.4
    joined[:, :2, 1:] *= 8
    flat = joined.reshape(rows, -1)
    words, given = attended(flat, heads), attended(flat, heads, may_be_bytes=True)
    np.testing.assert_array_equal(given[:, size:], words[:, size:])
    difference = np.abs(given - reference(flat, heads))[:, :size]
    figures = f"max {difference.max():.2e}, mean {difference.mean():.2e}"
    assert difference.max() < 0.15 and difference.mean() < 0.015, figures
    if rows > 2 and level != "amx":
        assert (given[:, :size] != words[:, :size]).any()


@pytest.mark.usefixtures("level")
def test_values_of_which_some_are_far_above_the_others_are_not_bytes():
    joined = drawn(300, 1, 16)
    joined[::100, 32:] *= 1000
    np.testing.assert_array_equal(attended(joined, 1, may_be_bytes=True), attended(joined, 1))


@pytest.mark.parametrize("size", [16, 72, 256])
@pytest.mark.parametrize("values", ["as keys", "alternating"])
@pytest.mark.parametrize("neighbours", [1, -1], ids=["alike", "opposite"])
def test_the_largest_sums_of_bytes_overflow_nowhere(size, values, neighbours, level):
    """Queries, keys and values all as long as their scales let them be, and weights at their peak."""
    rows = 200
    signs = np.where(np.arange(rows) % 3 == 0, -1, 1)[:, None]
    joined = np.ones((rows, 3 * size), np.float32)
    joined[:, 1 : 2 * size : 2] = neighbours
    joined[:, size : 2 * size] *= signs
    joined[:, 2 * size :] *= (
        signs if values == "as keys" else np.where(np.arange(rows) % 2 == 0, 1, -0.5)[:, None]
    )
    given, expected = attended(joined, 1, may_be_bytes=True), reference(joined, 1)
    difference = np.abs(given - expected)
    assert difference.max() < 0.01, f"max {difference.max():.2e}, mean {difference.mean():.2e}"
    if level != "amx" and values == "alternating":
        assert (given != attended(joined, 1)).any(), "these are not sums of bytes"


@pytest.mark.usefixtures("level")
def test_what_an_offset_adds_to_a_group_may_be_the_lowest_int16():
    """Sixty-fours at places whose sums one lane adds: 128 times their sum is 2^15."""
    joined = drawn(40, 1, 72)
    joined[:, :144] = 0
    joined[:, [0, 1, 32, 33, 72, 73, 104, 105]] = 1
    difference = np.abs(attended(joined, 1, may_be_bytes=True) - reference(joined, 1))
    assert difference.max() < 0.05, f"max {difference.max():.2e}, mean {difference.mean():.2e}"


def test_steep_scores_take_the_value_of_one_key():
    """Scores of +-2000: exponentials that no float holds. Later blocks bring higher maxima."""
    rows, size = 300, 8
    joined = np.zeros((rows, 3 * size), np.float32)
    joined[:, 0] = 64
    joined[:, size] = np.linspace(-100, 100, rows)
    joined[:, 2 * size] = np.arange(rows) % 128
    out = attended(joined, 1)
    assert np.abs(out[:, 0] - (rows - 1) % 128).max() < 115 * 2**-11
    joined[:, 0] = -64
    assert np.abs(attended(joined, 1)[:, 0]).max() < 115 * 2**-11, "the first key's value is 0"


def test_what_is_not_a_number_stays_none():
    joined = drawn(200, 2, 16)
    joined[150, 2 * 16 + 3] = np.nan  # a key of the first head
    for may_be_bytes in (False, True):
        out = attended(joined, 2, may_be_bytes)
        assert np.isnan(out[:, :16]).all()
        assert np.isfinite(out[:, 16:]).all()


def test_buffers_of_other_lengths_are_refused():
    joined, packed = (
        drawn(64, 2, 16),
        np.empty(cpu_kernels.vision_packed_words(64, 2, 16), np.uint32),
    )
    threads = cpu_kernels.vision_threads(1)
    with pytest.raises(ValueError, match="a buffer has"):
        cpu_kernels.vision_attend(
            threads, joined, 64, 2, 16, np.empty((64, 33), np.float32), packed
        )
    with pytest.raises(ValueError, match="a buffer has"):
        cpu_kernels.vision_attend(
            threads, joined, 65, 2, 16, np.empty((64, 32), np.float32), packed
        )
    with pytest.raises(ValueError, match="too large"):
        cpu_kernels.vision_packed_words(64, 2, 257)
