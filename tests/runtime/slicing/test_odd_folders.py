"""Folders as scanners and CDs really write them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import Modality, ScanListing, Series

WriteSlice = Callable[..., Path]


def only(scan: Path) -> Series:
    (series,) = find_series(scan).series
    return series


def problems(series: Series) -> dict[str, str]:
    return {problem.name: problem.detail for problem in series.problems}


def reasons(listing: ScanListing) -> dict[str, str]:
    return {file.path: file.reason for file in listing.skipped}


def test_every_other_file_is_skipped_with_its_reason(
    phantom: Path, write_slice: WriteSlice, tmp_path: Path
) -> None:
    (phantom / "notes.dcm").write_text("not an image")
    (phantom / "empty.dcm").touch()
    (phantom / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (phantom / "cut.dcm").write_bytes(write_slice(20, "whole").read_bytes()[:-100])
    (phantom / "whole").unlink()
    write_slice(21, "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slice(22, "capture", SOPClassUID=SecondaryCaptureImageStorage)
    write_slice(23, "colour", SamplesPerPixel=3, pixels=np.zeros((16, 24, 3), np.uint8))
    write_slice(24, "header only").write_bytes(write_slice(24, "header only").read_bytes()[:-780])
    (tmp_path / "elsewhere").write_bytes((phantom / "scout").read_bytes())
    (phantom / "link").symlink_to(tmp_path / "elsewhere")
    (phantom / "folder").symlink_to(tmp_path)
    listing = find_series(phantom)
    assert [series.shape for series in listing.series] == [(9, 16, 24)]
    assert reasons(listing) == {
        "notes.dcm": "neither DICOM nor NIfTI by its content",
        "empty.dcm": "empty file",
        "DICOMDIR": "DICOMDIR, not followed: the files themselves are read",
        "cut.dcm": "truncated: 668 of 768 bytes of pixel data are there",
        "scout": "localizer (scout)",
        "capture": "not a CT, MR, CR or DX image: Secondary Capture Image Storage",
        "colour": "colour picture, not a scan",
        "header only": "no pixel data; the file may be truncated",
        "link": "link to a file outside the scan folder, not followed",
        "folder": "link to a folder, not followed",
    }


def test_a_copied_slice_is_read_once(phantom: Path) -> None:
    shutil.copy(next(phantom.iterdir()), phantom / "copy")
    listing = find_series(phantom)
    assert listing.series[0].shape[0] == 9
    assert problems(listing.series[0]) == {
        "duplicate_slices": "copies of slices in the folder: 1; each slice is read once"
    }
    assert list(reasons(listing).values()) == ["duplicate: the same object as another file"]


def test_other_content_at_the_same_position_is_named(
    phantom: Path, write_slice: WriteSlice
) -> None:
    write_slice(4, "again", SOPInstanceUID="1.2.9", InstanceNumber=99)
    series = only(phantom)
    assert series.shape[0] == 9
    assert problems(series)["duplicate_slices"].startswith("1 slices share a position")
    assert "1.2.9" not in [source.sop_instance_uid for source in series.sources]


def test_a_missing_slice_is_counted_and_placed(phantom: Path, write_slice: WriteSlice) -> None:
    write_slice(4).unlink()
    assert problems(only(phantom)) == {"missing_slices": "1 missing between 7.5 and 12.5 mm"}


def test_the_tilt_comes_from_the_positions(write_slice: WriteSlice) -> None:
    for index in range(6):
        offset = 2.5 * index * np.tan(np.radians(20))
        path = write_slice(
            index, ImagePositionPatient=[0, -offset, 2.5 * index], GantryDetectorTilt=-20
        )
    assert problems(only(path.parent)) == {
        "gantry_tilt": "slices lean by 20.0° from the stack's axis"
    }


def test_two_planes_of_a_few_slices_are_a_localizer(phantom: Path, write_slice: WriteSlice) -> None:
    for index in range(4):
        write_slice(
            index,
            f"scout{index}",
            SeriesInstanceUID="1.2.3.99",
            SOPInstanceUID=f"1.2.3.99.{index}",
            ImageOrientationPatient=[1, 0, 0, 0, 0, -1] if index % 2 else [0, 1, 0, 0, 0, -1],
        )
    listing = find_series(phantom)
    assert [series.series_uid for series in listing.series] == ["1.2.3.4"]
    assert set(reasons(listing).values()) == {"localizer: a few slices in several planes"}


def test_a_second_stack_in_the_same_series_is_split_off(
    phantom: Path, write_slice: WriteSlice
) -> None:
    for index in range(3):
        pixels = np.full((8, 8), 24, np.int16)
        write_slice(index, f"small{index}", SOPInstanceUID=f"1.2.8.{index}", pixels=pixels)
    listing = find_series(phantom)
    assert sorted(series.shape for series in listing.series) == [(3, 8, 8), (9, 16, 24)]
    assert all(
        problems(series) == {"mixed_series": "one series UID holds 2 different stacks"}
        for series in listing.series
    )


def test_interleaved_echoes_become_two_volumes(write_slice: WriteSlice) -> None:
    for index in range(12):
        path = write_slice(
            index,
            SOPClassUID=MRImageStorage,
            ImagePositionPatient=[0, 0, 3.0 * (index // 2)],
            EchoTime=[20, 90][index % 2],
        )
    listing = find_series(path.parent)
    assert [(series.modality, series.shape[0]) for series in listing.series] == [
        (Modality.MR, 6),
        (Modality.MR, 6),
    ]


def test_of_a_time_series_the_first_point_is_read(write_slice: WriteSlice) -> None:
    for index in range(12):
        path = write_slice(
            index,
            SOPClassUID=MRImageStorage,
            ImagePositionPatient=[0, 0, 3.0 * (index % 4)],
            TemporalPositionIdentifier=1 + index // 4,
        )
    series = only(path.parent)
    assert series.shape[0] == 4
    assert problems(series) == {"time_series": "3 images at each position; the first is read"}
    np.testing.assert_array_equal(read_volume(series).array[:, 8, 12], [0, 10, 20, 30])


def test_a_slice_that_cannot_be_decoded_is_left_out_and_named(phantom: Path) -> None:
    series = only(phantom)
    damaged = series.sources[3].path
    damaged.write_bytes(damaged.read_bytes()[:-300])
    volume = read_volume(series)
    np.testing.assert_array_equal(volume.slice_indices, [0, 1, 2, 4, 5, 6, 7, 8])
    assert "1 slices left out" in volume.problems[0].detail
    assert volume.problems[0].name == "undecodable_slices"


def test_without_positions_the_order_is_by_number_and_said(write_slice: WriteSlice) -> None:
    for index in range(5):
        path = write_slice(index, ImagePositionPatient=None)
    series = only(path.parent)
    assert list(problems(series)) == ["no_positions"]
    assert series.spacing_mm[0] == 5  # nothing but the thickness is left
    np.testing.assert_array_equal(read_volume(series).array[:, 8, 12], [0, 10, 20, 30, 40])


def test_ct_without_rescale_is_named(write_slice: WriteSlice) -> None:
    path = write_slice(0, RescaleSlope=None, RescaleIntercept=None)
    assert list(problems(only(path.parent))) == ["not_hounsfield"]


def test_ct_without_any_air_is_named(write_slice: WriteSlice) -> None:
    path = write_slice(0, RescaleIntercept=0)
    volume = read_volume(only(path.parent))
    assert [problem.name for problem in volume.problems] == ["not_hounsfield"]


@pytest.mark.parametrize("padding", [-2000, 63536], ids=["signed", "as unsigned"])
def test_padding_becomes_air(write_slice: WriteSlice, padding: int) -> None:
    pixels = np.full((8, 8), 1064, np.int16)
    pixels[0] = -2000
    pixels[1] = 24
    path = write_slice(0, pixels=pixels)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
    dataset.save_as(path)
    array = read_volume(only(path.parent)).array[0]
    np.testing.assert_array_equal(array[:3, 0], [-1024, -1000, 40])


def test_a_radiograph_is_windowed_and_its_polarity_undone(write_slice: WriteSlice) -> None:
    pixels = np.array([[0, 100], [200, 4000]], np.int16)
    path = write_slice(
        0,
        SOPClassUID=DigitalXRayImageStorageForPresentation,
        PhotometricInterpretation="MONOCHROME1",
        RescaleIntercept=0,
        WindowCenter=100,
        WindowWidth=200,
        VOILUTFunction="LINEAR_EXACT",
        pixels=pixels,
    )
    series = only(path.parent)
    assert (series.modality, series.orientation, series.shape) == (
        Modality.DX,
        "projection",
        (1, 2, 2),
    )
    np.testing.assert_allclose(read_volume(series).array[0], [[1, 0.5], [0, 0]])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_skipped(phantom: Path, write_slice: WriteSlice) -> None:
    write_slice(30, "secret").chmod(0)
    assert reasons(find_series(phantom)) == {"secret": "cannot be opened; check its permissions"}
