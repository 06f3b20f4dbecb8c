from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import Modality, Problem, Volume
from edge_medgemma.runtime.slicing.windows import render_stack


@pytest.fixture
def volume(phantom: Path) -> Volume:
    return read_volume(find_series(phantom).series[0], [1, 3])


def with_values(volume: Volume, values: list[float], modality: Modality) -> Volume:
    array = np.zeros_like(volume.array)
    array[:, 0, : len(values)] = values
    return replace(volume, array=array, series=replace(volume.series, modality=modality))


def test_ct_values_by_hand(volume: Volume) -> None:
    hounsfield = [-3000.0, -1024, -135, 0, 40, 80, 215, 1024, 3071]
    pixels = render_stack(with_values(volume, hounsfield, Modality.CT)).pixels[0, 0, :9]
    # 255·(HU + 1024)/2048, 255·(HU + 135)/350, 255·HU/80, each clipped and rounded (127.5 to the even 128)
    np.testing.assert_array_equal(pixels[:, 0], [0, 0, 111, 128, 132, 137, 154, 255, 255])
    np.testing.assert_array_equal(pixels[:, 1], [0, 0, 0, 98, 128, 157, 255, 255, 255])
    np.testing.assert_array_equal(pixels[:, 2], [0, 0, 0, 0, 128, 255, 255, 255, 255])


def test_mr_runs_from_the_lowest_to_the_highest_value_of_the_volume(volume: Volume) -> None:
    mr = with_values(volume, [-100.0, 300], Modality.MR)
    stack = render_stack(mr)
    assert stack.preset == "medgemma-mr"
    np.testing.assert_array_equal(stack.pixels[0, 0, :3], [[0] * 3, [255] * 3, [64] * 3])


def test_a_constant_volume_is_black_and_named(volume: Volume) -> None:
    stack = render_stack(with_values(volume, [], Modality.MR))
    assert stack.pixels.max() == 0
    assert [problem.name for problem in stack.problems] == ["constant_intensity"]


def test_a_radiograph_runs_from_black_to_white(volume: Volume) -> None:
    stack = render_stack(with_values(volume, [1.0, 0.5], Modality.DX))
    np.testing.assert_array_equal(stack.pixels[0, 0, :3, 1], [255, 128, 0])


def test_the_stack_knows_where_its_slices_are(volume: Volume) -> None:
    stack = render_stack(volume)
    assert stack.preset == "medgemma-ct"
    assert stack.pixels.shape == (2, 16, 24, 3)
    np.testing.assert_array_equal(stack.slice_indices, [1, 3])
    np.testing.assert_allclose(stack.positions_mm, [2.5, 7.5])


def test_ct_without_hounsfield_units_never_reaches_the_model(volume: Volume) -> None:
    flagged = replace(volume, problems=(Problem("not_hounsfield", "…"),))
    with pytest.raises(ScanError, match="not in Hounsfield units"):
        render_stack(flagged)


def test_an_unknown_preset_is_refused(volume: Volume) -> None:
    with pytest.raises(ScanError, match="choose one of medgemma-ct, medgemma-mr, medgemma-xray"):
        render_stack(volume, preset="brain")
