import pytest

from edge_medgemma.runtime.profiling.distribution import (
    BAND_FLOOR,
    SINGLE_BAND,
    Distribution,
)


def test_quantiles_of_a_hundred_and_one_samples() -> None:
    one = Distribution.of([i / 100 for i in range(100, 201)])
    figures = (one.n, one.median_s, one.p90_s, one.p99_s, one.min_s, one.max_s, one.mad_s)
    assert figures == pytest.approx((101, 1.5, 1.9, 1.99, 1.0, 2.0, 0.25))


def test_a_calm_row_has_the_floor_and_a_wild_one_says_how_wild() -> None:
    assert Distribution.of([1.0, 1.001, 0.999]).noise_band == BAND_FLOOR
    assert Distribution.of([1.0, 2.0, 3.0]).noise_band > 1
    assert Distribution.of([1.0]).noise_band == SINGLE_BAND


def test_the_band_narrows_with_the_number_of_repetitions() -> None:
    few = Distribution.of([0.95, 1.0, 1.05])
    many = Distribution.of([0.95, 1.0, 1.05] * 2)
    assert few.noise_band == pytest.approx(3 * 1.2533 * 1.4826 * 0.05 / 3**0.5)
    assert many.noise_band == pytest.approx(few.noise_band / 2**0.5)


def test_a_fifth_is_outside_the_band_of_a_calm_row() -> None:
    assert max(BAND_FLOOR, SINGLE_BAND) < 0.2
