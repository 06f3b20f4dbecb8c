"""Scans of public bug reports, where a developer has them beside the repository."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import Modality, Series, View, Volume
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.triage.coverage import coverage_problems
from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS
from edge_medgemma.runtime.triage.worklist import StudyTask, plan_studies

CASES = Path(__file__).resolve().parents[3] / "../shared/cases"


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Folder of a case by name; skips where there are none."""

    def folder(name: str) -> Path:
        if not CASES.is_dir():
            pytest.skip("the cases in ../shared/cases are not on this machine")
        return CASES / name

    return folder


def only(path: Path) -> Series:
    (series,) = find_series(path).series
    return series


def names(series: Series | Volume) -> set[str]:
    return {problem.name for problem in series.problems}


def problems_of(task: StudyTask) -> set[str]:
    """Names of everything that `triage` knows before it asks the engine."""
    assert task.series is not None and task.protocol is not None
    indices = sample_slices(task.series.shape[0], task.protocol.slices)
    volume = read_volume(task.series, indices)
    found = [*task.problems, *volume.problems, *coverage_problems(task.protocol, volume, indices)]
    if "not_hounsfield" not in {problem.name for problem in found}:
        found += render_stack(volume).problems
    return {problem.name for problem in found}


@pytest.mark.parametrize(
    ("name", "shape", "step_mm", "note"),
    [
        ("ct_decimal_comma", (24, 96, 96), 6.0, None),
        ("ct_for_per_slice", (24, 96, 96), 6.0, "frame_of_reference_varies"),
        ("ct_position_constant", (24, 96, 96), 6.0, "positions_from_slice_location"),
        ("ct_spacing_text", (24, 96, 96), 6.0, None),
        ("ct_wrong_transfer_syntax", (24, 96, 96), 6.0, None),
        ("ct_float_pixels", (24, 96, 96), 6.0, None),
        ("mr_te_jitter", (24, 96, 96), 6.0, None),
        ("mr_multiframe_classic", (24, 96, 96), 6.0, "frames_placed_by_spacing"),
        ("j2k_no_preamble", (24, 96, 96), 6.0, None),
    ],
)
def test_one_whole_stack(case, name, shape, step_mm, note) -> None:
    series = only(case(name))
    assert (series.shape, series.spacing_mm[0]) == (shape, pytest.approx(step_mm))
    assert note is None or note in names(series)
    assert "no_positions" not in names(series)


@pytest.mark.parametrize(
    ("name", "slices"),
    [
        ("ct_phases_offset", [24, 24]),
        ("ct_thick_thin_kernels", [24, 70]),
        ("two_patients_same_series", [24, 24]),
    ],
)
def test_two_stacks(case, name, slices) -> None:
    assert sorted(one.shape[0] for one in find_series(case(name)).series) == slices


@pytest.mark.parametrize("name", ["two_patients_same_series", "two_patients_same_study"])
def test_two_people_are_two_readings(case, name) -> None:
    tasks = plan_studies(find_series(case(name)))
    assert len(tasks) == 2
    assert all("several_patients" in problems_of(task) for task in tasks)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("double_intercept_dicom", "not_hounsfield"),
        ("sparse_coverage", "slices_too_far_apart"),
        ("cr_bitsstored10", "bits_beyond_stored"),
        ("symlink_loop", "insufficient_coverage"),
    ],
)
def test_what_stands_in_the_way_is_named(case, name, problem) -> None:
    (task,) = plan_studies(find_series(case(name)))
    assert problem in problems_of(task) & BLOCKING_PROBLEMS.keys()


def test_without_contrast_means_without(case) -> None:
    (task,) = plan_studies(find_series(case("contrast_chosen")))
    assert task.series is not None and not task.series.has_contrast_agent
    assert "1 not as to contrast agent" in task.series_reason


def test_of_a_pair_the_image_for_presentation(case) -> None:
    (task,) = plan_studies(find_series(case("dx_for_processing_pair")))
    assert task.series is not None and not task.series.is_for_processing


def test_frontal_and_lateral(case) -> None:
    (task,) = plan_studies(find_series(case("dx_pa_and_lateral")))
    assert task.series is not None and task.series.views == (View.PA, View.LATERAL)


@pytest.mark.parametrize(
    "name", ["dx_hot_row_no_window", "dx_inverse_monochrome2", "dx_voilut_narrow"]
)
def test_lungs_are_dark_and_the_spine_is_bright(case, name) -> None:
    image = read_volume(only(case(name))).array[0]
    spine, lung = image[100:150, 145:155].mean(), image[100:150, 60:100].mean()
    assert spine > 0.7 and lung < 0.3


def test_the_nose_is_up(case) -> None:
    flipped, upright = only(case("iop_flip_y")), only(case("ct_for_per_slice"))
    assert flipped.affine_lps_mm[1, 1] > 0  # rows run to the back
    shift = np.abs(read_volume(flipped).array - read_volume(upright).array).max(axis=(1, 2))
    assert np.median(shift) < 100, "the two are one phantom"


def test_values_beyond_31_bits_stay_positive(case) -> None:
    volume = read_volume(only(case("mr_uint32")))
    assert volume.value_range is not None and volume.value_range[0] > 0
    assert volume.value_range[1] > 2**31


def test_the_lowest_value_of_a_negative_mr_is_white(case) -> None:
    volume = read_volume(only(case("mr_monochrome1")))
    assert volume.array.max() - volume.array[:, :4, :4].mean() < 5, "air was stored lowest"
    assert volume.array[:, 40:56, 40:56].mean() < volume.array.max() - 50


def test_metres(case) -> None:
    series = only(case("nifti_metres"))
    np.testing.assert_allclose(series.spacing_mm[1:], 2.4, rtol=1e-3)


def test_a_float_ct_is_a_ct(case) -> None:
    assert only(case("nifti_float_ct")).modality is Modality.CT


def test_two_affines_that_differ_are_named(case) -> None:
    assert "orientation_conflict" in names(only(case("nifti_qform_sform")))


def test_a_pair_of_nifti_files_is_named(case) -> None:
    with pytest.raises(ScanError, match="unsupported: NIfTI pair"):
        find_series(case("nifti_pair"))


def test_an_unsupported_syntax_is_named(case) -> None:
    with pytest.raises(ScanError, match=r"unsupported transfer syntax \(JPEG XL"):
        read_volume(only(case("ct_jpeg_xl")))


def test_an_empty_archive_is_named(case) -> None:
    with pytest.raises(ScanError, match="no CT, MR or X-ray image"):
        find_series(case("empty_zip"))


def test_a_loop_of_links_is_left_alone(case, tmp_path: Path) -> None:
    with tarfile.open(case("symlink_loop") / "scan.tar") as archive:
        archive.extractall(tmp_path, filter="fully_trusted")
    listing = find_series(tmp_path)
    assert listing.series
    assert any("link" in file.reason for file in listing.skipped)
