from dataclasses import replace

import numpy as np
import pytest
from support.synthetic_series import bare_series

from edge_medgemma.runtime.slicing.volume import Problem, Series, Volume
from edge_medgemma.runtime.triage.coverage import coverage_problems
from edge_medgemma.runtime.triage.protocol import load_protocol

HEAD_CT = load_protocol("head_ct")


def problems(series: Series, *, lost: int = 0, protocol=HEAD_CT) -> list[str]:
    requested = np.arange(series.shape[0])
    read = requested[: len(requested) - lost]
    volume = Volume(series, read, np.full((len(read), 8, 8), 30, np.float32), ())
    return [p.name for p in coverage_problems(protocol, volume, requested)]


def at(positions_mm) -> Series:
    positions_mm = np.asarray(positions_mm, float)
    step_mm = float(np.median(np.diff(positions_mm)))
    series = bare_series(slices=len(positions_mm))
    return replace(series, positions_mm=positions_mm, spacing_mm=(step_mm, 25.0, 25.0))


def test_a_whole_head_has_no_problem() -> None:
    assert problems(bare_series()) == []


@pytest.mark.parametrize(("count", "expected"), [(14, []), (13, ["insufficient_coverage"])])
def test_less_than_the_protocol_expects(count, expected) -> None:
    assert problems(at(np.arange(count) * 5.0)) == expected
    assert problems(at(np.arange(count) * 5.0), protocol=load_protocol("chest_xray")) == []


def test_a_missing_half_is_a_problem_and_a_change_of_spacing_is_not() -> None:
    whole = np.arange(30) * 5.0
    assert problems(at(np.delete(whole, range(8, 22)))) == ["slices_too_far_apart"]
    assert problems(at(np.delete(whole, [10]))) == []
    fine_below, coarse_above = np.arange(14) * 4.0, 54.0 + np.arange(14) * 7.0
    assert problems(at(np.concatenate([fine_below, coarse_above]))) == []


def test_made_up_positions_say_nothing_about_coverage() -> None:
    series = replace(bare_series(), problems=(Problem("no_positions", "None given."),))
    assert problems(series) == ["coverage_unknown"]


@pytest.mark.parametrize(("lost", "expected"), [(3, []), (4, ["slices_lost"])])
def test_more_than_a_tenth_of_the_slices_lost(lost, expected) -> None:
    assert problems(bare_series(slices=30), lost=lost) == expected


@pytest.mark.parametrize("count", range(2, 12))
def test_no_gap_is_silent(count: int) -> None:
    """Ten stacks that span a whole head, their slices too far apart to have seen it."""
    sparse = at(np.linspace(0, 140, count))
    assert {"slices_too_far_apart", "insufficient_coverage"} & set(problems(sparse))


def test_ten_millimetre_slices_in_steps_of_twelve_are_enough() -> None:
    assert problems(at(np.arange(8) * 12.0)) == []


@pytest.mark.parametrize("side_mm", [0.0024, 0.4, 100.0, 2400.0])
def test_sizes_that_no_body_has(side_mm: float) -> None:
    series = replace(bare_series(), spacing_mm=(5.0, side_mm, side_mm))
    assert problems(series) == ["implausible_size"]


def test_a_contrast_agent_is_a_problem_where_the_protocol_wants_none() -> None:
    assert problems(replace(bare_series(), has_contrast_agent=True)) == ["contrast_agent"]
    chest = load_protocol("chest_ct")
    assert problems(replace(bare_series(), has_contrast_agent=True), protocol=chest) == []


@pytest.mark.parametrize(("empty", "expected"), [(5, []), (10, ["insufficient_coverage"])])
def test_empty_slices_within_the_body_are_not_seen(empty: int, expected) -> None:
    array = np.full((30, 8, 8), 30, np.float32)
    array[10 : 10 + empty] = -1000
    volume = Volume(bare_series(slices=30), np.arange(30), array, ())
    assert [p.name for p in coverage_problems(HEAD_CT, volume, np.arange(30))] == expected


@pytest.mark.parametrize(("length_mm", "expected"), [(280, []), (480, ["slices_too_far_apart"])])
def test_a_stack_too_long_for_the_slices_of_the_protocol(length_mm: float, expected) -> None:
    """Head, neck and chest in one stack leave too few slices for the head."""
    assert problems(at(np.arange(0, length_mm, 4.0))) == expected


def test_empty_slices_are_no_coverage() -> None:
    array = np.full((30, 8, 8), -1000, np.float32)
    array[:10] = 30
    volume = Volume(bare_series(), np.arange(30), array, ())
    found = coverage_problems(HEAD_CT, volume, np.arange(30))
    assert [problem.name for problem in found] == ["insufficient_coverage"]
