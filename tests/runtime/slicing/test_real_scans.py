"""Real scans against what dcm2niix, highdicom and the reference NIfTI files say of them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.dicom.dicom_file import opened_at_pixels
from edge_medgemma.runtime.slicing.pixels.pixel_data import decode_stored
from edge_medgemma.runtime.slicing.scan import find_series, measure_range, read_volume
from edge_medgemma.runtime.slicing.volume import Modality, Series


def series_of(scan: Path) -> list[Series]:
    return list(find_series(scan).series)


def problems(series: Series) -> dict[str, str]:
    return {problem.name: problem.detail for problem in series.problems}


def value_range(series: Series) -> tuple[float, float]:
    found, _ = measure_range(series)
    assert found is not None
    return found


def stored_values(path: Path) -> NDArray[np.int32]:
    with opened_at_pixels(path) as (dataset, source):
        return decode_stored(dataset, source, 0)


def test_tilted_head_of_two_blocks(shared_data: Path) -> None:
    (series,) = series_of(shared_data / "ct_ge_head_tilt")
    assert series.shape == (28, 512, 512)
    assert problems(series) == {
        "gantry_tilt": "slices lean by 18.5° from the stack's axis",
        "non_uniform_spacing": "slices are 1.08 to 7.00 mm apart",
    }
    volume = read_volume(series)
    assert volume.array.min() == -1024  # -1500 is padding
    # dcm2niix has first, middle and last slice means of -650.07, -588.00, -958.04 with padding
    means = volume.array.mean(axis=(1, 2))[[0, 14, 27]]
    assert np.argsort(means).tolist() == [2, 0, 1]


def test_a_messy_folder_is_one_volume(shared_data: Path) -> None:
    listing = find_series(shared_data / "derived_messy_folder/scan")
    (series,) = listing.series
    assert series.shape == (28, 512, 512)
    assert series.spacing_mm == pytest.approx((5, 0.4512, 0.4512), abs=1e-4)
    assert list(problems(series)) == ["duplicate_slices"]
    classes = {file.reason.split(":")[0] for file in listing.skipped}
    assert classes == {
        "not a CT, MR, CR or DX image",
        "neither DICOM nor NIfTI by its content",
        "duplicate",
        "empty file",
        "localizer (scout)",
        "PDF document, not a scan; give the DICOM images",
        "truncated",
    }


@pytest.mark.parametrize(
    ("folder", "shape", "spacing_mm", "expected_range"),
    [
        ("ct_chest_tcia_cmbcrc", (100, 512, 512), (2.5, 0.8984, 0.8984), (-1024, 3071)),
        ("ct_kits_abdomen18_topogram", (18, 512, 512), (2.5, 0.6641, 0.6641), (-1024, 1334)),
        ("derived_messy_folder", (28, 512, 512), (5.0, 0.4512, 0.4512), (-1024, 782)),
        ("pydicom_data/eCT_Supplemental.dcm", (2, 512, 512),
         (10, 0.3887, 0.3887), (-1024, 172)),
    ],
)  # fmt: skip
def test_shape_spacing_and_range(
    shared_data: Path,
    folder: str,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    expected_range: tuple[float, float],
) -> None:
    (series,) = series_of(shared_data / folder)
    assert series.modality is Modality.CT
    assert series.shape == shape
    assert series.spacing_mm == pytest.approx(spacing_mm, abs=1e-3)
    assert value_range(series) == expected_range


def test_missing_slices_are_named(shared_data: Path) -> None:
    (series,) = series_of(shared_data / "monai_ct4")
    assert problems(series) == {"missing_slices": "161 missing between -99.5 and 103.0 mm"}
    (series,) = series_of(shared_data / "dicom2nifti_tests/failing/gantrytilting")
    assert list(problems(series)) == ["gantry_tilt", "no_frame_of_reference"]


def test_decubitus_stays_sagittal(shared_data: Path) -> None:
    both = series_of(shared_data / "mr_decubitus_positions/In")
    assert [(one.shape, one.orientation) for one in both] == [((35, 256, 256), "sagittal")] * 2
    assert {value_range(one) for one in both} == {(0, 1948), (0, 1822)}


def test_localizers_give_no_series(shared_data: Path) -> None:
    with pytest.raises(ScanError, match="localizer"):
        find_series(shared_data / "dicom2nifti_tests/failing/sliceorientation")


def test_single_slice_series(shared_data: Path) -> None:
    listed = series_of(shared_data / "ct_covid_sbu_single_slices")
    assert len(listed) == 12
    assert {one.shape[0] for one in listed} == {1}
    assert {one.orientation for one in listed} == {"axial", "coronal", "sagittal"}
    assert all(one.problems == () for one in listed)


def test_enhanced_mr_is_split_and_scaled_per_frame(shared_data: Path) -> None:
    scan = shared_data / "mr_enhanced_siemens_philips/In/Philips"
    magnitude, field_map = sorted(series_of(scan), key=lambda one: value_range(one)[0])[::-1]
    assert magnitude.shape == field_map.shape == (32, 64, 64)
    assert value_range(field_map) == pytest.approx((-495.604, 497.320), abs=0.01)


def test_the_same_volume_classic_and_multiframe(shared_data: Path) -> None:
    folder = shared_data / "dcmqi_ct3slice_seg_sr/data/segmentations/24x38x3"
    (classic,) = series_of(folder / "image")
    (multiframe,) = series_of(folder / "multiframe")
    np.testing.assert_allclose(classic.affine_lps_mm, multiframe.affine_lps_mm, atol=1e-4)
    np.testing.assert_array_equal(read_volume(classic).array, read_volume(multiframe).array)


def test_every_transfer_syntax_decodes_to_the_same_pixels(shared_data: Path) -> None:
    hashes = json.loads((shared_data / "lossless_hashes.json").read_text())
    paths = {
        next((shared_data / "mr_transfer_syntaxes").rglob(name)): digest
        for name, digest in hashes["mr_transfer_syntaxes"].items()
    }
    for group in hashes["nema"].values():
        paths.update({shared_data / name: digest for name, digest in group.items()})
    wrong = []
    for path, digest in paths.items():
        if hashlib.sha256(stored_values(path).astype("<i4").tobytes()).hexdigest() != digest:
            wrong.append(path.name)
    assert len(paths) > 40
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "mean_difference"), [("MR1", 12), ("MR2", 6), ("MR3", 5), ("MR4", 4)]
)
def test_12_bit_jpeg_is_near_the_uncompressed_image(
    shared_data: Path, name: str, mean_difference: float
) -> None:
    lossy, plain = (
        stored_values(next((shared_data / "nema_wg04_codecs").rglob(f"{name}_{suffix}")))
        for suffix in ("JPLY", "UNC")
    )
    differences = np.abs(lossy - plain)
    print(f"{name}: max {differences.max()}, mean {differences.mean():.2f} of {plain.max()}")
    assert differences.mean() < mean_difference
    assert np.corrcoef(lossy.ravel(), plain.ravel())[0, 1] > 0.997
