import numpy as np
import pytest

from edge_medgemma.calibration.search.ranges import (
    candidate_ranges,
    entropy_range,
    mse_range,
    round_to_grid,
)


@pytest.fixture
def heavy_tailed():
    """A thousandth of the values is thirty times as large as the others."""
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    values[::1000] *= 30
    return np.abs(values)


def test_every_method_stays_within_the_largest(heavy_tailed):
    largest = float(heavy_tailed.max())
    ranges = candidate_ranges(heavy_tailed, largest)
    assert ranges["min-max"] == largest
    assert all(0 < limit <= largest * 1.001 for limit in ranges.values())
    assert ranges["percentile 99.9"] < ranges["percentile 99.999"]


def test_tails_are_clipped(heavy_tailed):
    assert entropy_range(heavy_tailed) < 0.7 * heavy_tailed.max()


def test_mse_beats_min_max(heavy_tailed):
    limits = {"mse": mse_range(heavy_tailed), "min-max": float(heavy_tailed.max())}
    errors = {
        name: float(np.square(round_to_grid(heavy_tailed, limit) - heavy_tailed).mean())
        for name, limit in limits.items()
    }
    assert errors["mse"] < errors["min-max"], errors


def test_uniform_values_keep_their_range():
    values = np.linspace(0, 1, 50_000, dtype=np.float32)
    assert mse_range(values) > 0.95
    assert entropy_range(values) > 0.9


def test_the_grid_has_127_steps_on_each_side():
    grid = np.unique(round_to_grid(np.linspace(-2, 2, 9999, dtype=np.float32), 1.0))
    assert len(grid) == 255
    assert grid.min() == -grid.max() == -1
