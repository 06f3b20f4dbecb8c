from pathlib import Path

import numpy as np
import pydicom
import pytest
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.slicing.hounsfield import hounsfield_problems, tissue_problems
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.values import ValueStatistics
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality
from edge_medgemma.runtime.triage.coverage import coverage_problems
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS

HEAD_CT = Path(__file__).resolve().parents[2] / "data" / "ct_head"

WRONG_RESCALES = {
    "intercept twice": (1.0, -1024.0),
    "intercept left out": (1.0, 1024.0),
    "intercept -1000": (1.0, 24.0),
    "a hundred too high": (1.0, 100.0),
    "a hundred too low": (1.0, -100.0),
    "slope 2": (2.0, 0.0),
    "slope 0.5": (0.5, 0.0),
    "slope 10": (10.0, 0.0),
    "slope 1.1": (1.1, 0.0),
    "slope 0.9": (0.9, 0.0),
    "slope 0.001": (0.001, 0.0),
    "slope -1": (-1.0, 0.0),
}
"""Name to slope and shift, applied to stored values that begin at -1024 HU."""


def problems(slices: np.ndarray, part: BodyPart) -> list[str]:
    statistics = ValueStatistics(Modality.CT)
    statistics.add(slices)
    found = hounsfield_problems(statistics.counts) or tissue_problems(slices, part)
    return [problem.name for problem in found]


@pytest.fixture(scope="module")
def real_head() -> np.ndarray:
    return read_volume(find_series(HEAD_CT).series[0]).array


@pytest.mark.parametrize("name", WRONG_RESCALES)
def test_no_wrong_rescale_of_a_real_head_is_silent(real_head, name: str) -> None:
    slope, shift = WRONG_RESCALES[name]
    wrong = np.maximum(slope * (real_head + 1024) - 1024 + shift, -1024).astype(np.float32)
    (named,) = problems(wrong, BodyPart.HEAD)
    assert named in ("not_hounsfield", "implausible_hounsfield", "almost_only_air")
    assert named in BLOCKING_PROBLEMS


def test_a_real_head_is_plausible_slice_by_slice_and_whole(real_head) -> None:
    assert problems(real_head, BodyPart.HEAD) == []
    assert [i for i, one in enumerate(real_head) if problems(one, BodyPart.UNKNOWN)] == []


def test_padding_alone_is_no_air(real_head) -> None:
    """Padding is set to air whatever the units; true air 1024 too high looks like tissue."""
    shifted = real_head + 1024
    shifted[:, :40] = -1024
    assert problems(shifted, BodyPart.HEAD) == ["not_hounsfield"]


@pytest.mark.parametrize("slope", [0.5, 0.8, 0.9])
def test_a_slope_too_low_without_an_intercept_shows_in_the_air(real_head, slope: float) -> None:
    wrong = np.where(real_head == -1024, real_head, slope * real_head).astype(np.float32)
    assert problems(wrong, BodyPart.HEAD) == ["implausible_hounsfield"]


@pytest.mark.parametrize("part", ["ct_chest_tcia_cmbcrc", "ct_kits_abdomen18_topogram"])
def test_real_trunks_are_plausible_and_their_wrong_rescales_are_not(shared_data, part) -> None:
    (series,) = find_series(shared_data / part).series
    trunk = read_volume(series, np.arange(0, series.shape[0], 4)).array
    assert problems(trunk, series.body_part) == []
    for name in ("intercept twice", "intercept left out", "slope 2", "slope 0.5", "slope 1.1"):
        slope, shift = WRONG_RESCALES[name]
        wrong = np.maximum(slope * (trunk + 1024) - 1024 + shift, -1024).astype(np.float32)
        assert problems(wrong, series.body_part), name


def test_air_alone_is_named() -> None:
    assert problems(np.full((2, 32, 32), -1000, np.float32), BodyPart.HEAD) == ["almost_only_air"]


def test_half_a_stack_in_other_units_is_named(tmp_path: Path) -> None:
    folder = write_head_ct(tmp_path / "scan")
    for number, path in enumerate(sorted(folder.iterdir())):
        if number % 2:
            dataset = pydicom.dcmread(path)
            dataset.RescaleIntercept = -1024
            dataset.save_as(path)
    volume = read_volume(find_series(folder).series[0])
    found = coverage_problems(load_protocol("head_ct"), volume, np.arange(20))
    assert "rescale_varies" in {problem.name for problem in volume.problems}
    assert [problem.name for problem in found] == ["implausible_hounsfield"]
