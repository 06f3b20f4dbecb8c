import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import Modality, Series

RAS_STEPS_MM = np.diag([1.0, 1.0, 3.0, 1.0])


def write(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def landmark() -> np.ndarray:
    """[right, anterior, head] with one bright voxel near the right, front and bottom."""
    values = np.zeros((12, 14, 8), np.int16)
    values[10, 12, 1] = 500
    return values


def only(path: Path) -> Series:
    (series,) = find_series(path).series
    return series


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PSR", "SRA"])
def test_any_storage_order_gives_the_same_pictures(tmp_path: Path, codes: str) -> None:
    image = nibabel.Nifti1Image(landmark(), RAS_STEPS_MM)
    to = nibabel.orientations.axcodes2ornt(tuple(codes))
    stored = image.as_reoriented(
        nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), to)
    )
    nibabel.save(stored, tmp_path / "scan.nii.gz")
    series = only(tmp_path / "scan.nii.gz")
    assert series.shape == (8, 14, 12)
    assert series.orientation == "axial"
    assert series.spacing_mm == (3, 1, 1)
    array = read_volume(series).array
    assert np.argwhere(array == 500).tolist() == [[1, 1, 1]]  # front is up, right is left
    np.testing.assert_allclose(series.affine_lps_mm @ [1, 1, 1, 1], [-10, -12, 3, 1])
    np.testing.assert_allclose(series.positions_mm, 3 * np.arange(8))


def test_thick_sagittal_slices_stay_sagittal_with_the_head_up(tmp_path: Path) -> None:
    values = np.zeros((6, 14, 16), np.int16)
    values[1, 12, 15] = 500
    series = only(write(tmp_path / "a.nii", values, np.diag([5.0, 1, 1, 1])))
    assert (series.orientation, series.shape) == ("sagittal", (6, 16, 14))
    bright = np.argwhere(read_volume(series).array == 500)[0]
    assert bright.tolist() == [4, 0, 1]
    np.testing.assert_allclose(series.affine_lps_mm @ [*bright, 1], [-5, -12, 15, 1])


def test_the_kind_is_guessed_and_said(tmp_path: Path) -> None:
    hounsfield = landmark() - 1000
    ct = only(write(tmp_path / "ct.nii", hounsfield, RAS_STEPS_MM))
    mr = only(write(tmp_path / "mr.nii", landmark(), RAS_STEPS_MM))
    assert (ct.modality, mr.modality) == (Modality.CT, Modality.MR)
    assert [problem.name for problem in (*ct.problems, *mr.problems)] == ["modality_guessed"] * 2


def test_slope_and_time_points(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.stack([landmark(), 2 * landmark()], axis=-1), RAS_STEPS_MM)
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "a.nii")
    series = only(tmp_path / "a.nii")
    assert [problem.name for problem in series.problems] == ["modality_guessed", "time_series"]
    array = read_volume(series, [1]).array
    assert (array.min(), array.max()) == (10, 0.5 * 500 + 10)


def test_values_that_are_no_numbers_become_the_lowest(tmp_path: Path) -> None:
    values = landmark().astype(np.float32)
    values[0, 0, 0] = np.nan
    series = only(write(tmp_path / "a.nii", values, RAS_STEPS_MM))
    assert "non_finite_values" in [problem.name for problem in series.problems]
    assert np.isfinite(read_volume(series).array).all()


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", landmark(), RAS_STEPS_MM)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes())[:-100])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ScanError, match=r"files skipped: 2, most often because: .*NIfTI"):
        find_series(tmp_path)


def with_codes(path: Path, sform: int, qform: int, *, mirrored: bool = False) -> Series:
    image = nibabel.Nifti1Image(landmark(), RAS_STEPS_MM)
    image.set_qform(RAS_STEPS_MM @ np.diag([-1.0 if mirrored else 1.0, 1, 1, 1]), qform)
    image.set_sform(RAS_STEPS_MM, sform)
    nibabel.save(image, path)
    return only(path)


@pytest.mark.parametrize(
    ("sform", "qform", "mirrored", "problem"),
    [
        (1, 1, False, None), (2, 1, False, None), (1, 0, False, None), (0, 1, False, None),
        (1, 0, True, None), (1, 1, True, "orientation_conflict"), (2, 1, True, "orientation_conflict"),
        (0, 0, False, "orientation_not_stated"),
    ],
)  # fmt: skip
def test_the_two_affines_must_agree(tmp_path: Path, sform, qform, mirrored, problem) -> None:
    series = with_codes(tmp_path / "a.nii", sform, qform, mirrored=mirrored)
    named = [one.name for one in series.problems if one.name.startswith("orientation")]
    assert named == ([problem] if problem else [])


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1e-3), ("mm", 1.0), ("micron", 1e3)])
def test_units_of_space(tmp_path: Path, unit: str, scale: float) -> None:
    image = nibabel.Nifti1Image(landmark(), RAS_STEPS_MM @ np.diag([scale] * 3 + [1.0]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(only(tmp_path / "a.nii").spacing_mm, (3, 1, 1), rtol=1e-5)


def test_fractions_do_not_hide_a_ct_and_the_user_may_say_the_kind(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    head = np.full((32, 32, 12), -1000, np.float32)
    head[6:26, 6:26] = 35
    head += generator.normal(0, 3, head.shape).astype(np.float32)
    path = write(tmp_path / "a.nii", head, RAS_STEPS_MM)
    assert only(path).modality is Modality.CT
    (said,) = find_series(path, modality=Modality.MR).series
    assert said.modality is Modality.MR
    assert "modality_guessed" not in {problem.name for problem in said.problems}


def test_a_phase_image_is_not_a_ct(tmp_path: Path) -> None:
    phase = np.random.default_rng(5).uniform(-4096, 4095, (24, 24, 8)).astype(np.float32)
    assert only(write(tmp_path / "a.nii", phase, RAS_STEPS_MM)).modality is Modality.MR
