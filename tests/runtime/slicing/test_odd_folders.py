"""Folders as scanners and CDs really write them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, ScanListing, Series
from edge_medgemma.runtime.slicing.windows import render_stack

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
        "colour": "colour image, not a scan",
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


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("DiffusionBValue", [0.0, 1000.0]),
        ("ConvolutionKernel", ["SOFT", "BONE"]),
        ("ImageType", [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]]),
        ("AcquisitionNumber", [1, 2]),
        ("SeriesNumber", [3, 4]),
    ],
)
def test_what_shares_positions_is_split_by_what_tells_it_apart(
    write_slice: WriteSlice, keyword: str, values: list[object]
) -> None:
    for index in range(10):
        path = write_slice(
            index, ImagePositionPatient=[0, 0, 3.0 * (index // 2)], **{keyword: values[index % 2]}
        )
    both = find_series(path.parent).series
    assert sorted(read_volume(series).array[:, 8, 12].tolist() for series in both) == [
        [0, 20, 40, 60, 80],
        [10, 30, 50, 70, 90],
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


def test_pixels_that_are_not_square_are_named(write_slice: WriteSlice) -> None:
    path = write_slice(0, PixelSpacing=[0.5, 0.75])
    assert problems(only(path.parent)) == {
        "anisotropic_pixels": "pixels are 0.5 × 0.75 mm; the model is shown them as squares"
    }


def test_frames_of_reference_are_not_mixed_and_missed(write_slice: WriteSlice) -> None:
    for index in range(4):
        path = write_slice(index, FrameOfReferenceUID=["1.2.3.5", None][index % 2])
    both = find_series(path.parent).series
    assert [series.shape[0] for series in both] == [2, 2]
    names = {name for series in both for name in problems(series)}
    assert names == {"mixed_series", "no_frame_of_reference"}


def test_the_body_part_may_be_a_code(write_slice: WriteSlice) -> None:
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator = "51185008", "SCT"
    path = write_slice(0, BodyPartExamined=None, AnatomicRegionSequence=[region])
    assert only(path).body_part is BodyPart.CHEST


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


def test_padding_of_a_value_of_tissue_cuts_no_holes(write_slice: WriteSlice) -> None:
    pixels = np.full((8, 8), 1064, np.int16)
    pixels[0] = 24
    path = write_slice(0, pixels=pixels)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "SS", 1064)
    dataset.save_as(path)
    volume = read_volume(only(path.parent))
    np.testing.assert_array_equal(volume.array[0, :2, 0], [-1000, 40])
    assert "padding_in_tissue" in {problem.name for problem in volume.problems}


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


def lut(first: int, values: list[int]) -> Dataset:
    table = Dataset()
    table.LUTDescriptor = [len(values), first, 16]
    table.add_new("LUTData", "US", values)
    return table


def test_a_modality_lut_maps_stored_values(write_slice: WriteSlice) -> None:
    path = write_slice(
        0,
        SOPClassUID=MRImageStorage,
        RescaleSlope=None,
        RescaleIntercept=None,
        PixelRepresentation=0,
        ModalityLUTSequence=[lut(10, [100, 300, 200, 900])],
        pixels=np.array([[9, 10, 11], [12, 13, 14]], np.uint16),
    )
    np.testing.assert_array_equal(
        read_volume(only(path)).array[0], [[100, 100, 300], [200, 900, 900]]
    )


def test_a_modality_lut_gives_no_hounsfield_units(write_slice: WriteSlice) -> None:
    path = write_slice(
        0, RescaleSlope=None, RescaleIntercept=None, ModalityLUTSequence=[lut(0, [0, 1])]
    )
    assert list(problems(only(path))) == ["not_hounsfield"]


def test_a_voi_lut_goes_before_the_window(write_slice: WriteSlice) -> None:
    path = write_slice(
        0,
        SOPClassUID=DigitalXRayImageStorageForPresentation,
        PixelRepresentation=0,
        RescaleIntercept=0,
        WindowCenter=1000,
        WindowWidth=1,
        VOILUTSequence=[lut(2, [0, 65535, 13107])],
        pixels=np.array([[1, 2], [3, 4], [5, 6]], np.uint16),
    )
    np.testing.assert_allclose(
        read_volume(only(path)).array[0], [[0, 0], [1, 0.2], [0.2, 0.2]], atol=1e-6
    )


def test_an_mr_is_ranged_over_all_its_slices(write_slice: WriteSlice) -> None:
    for index in range(6):
        path = write_slice(index, SOPClassUID=MRImageStorage, RescaleIntercept=0)
    volume = read_volume(only(path.parent), [1, 2])
    np.testing.assert_array_equal(volume.slice_indices, [1, 2])
    np.testing.assert_array_equal(volume.array[:, 8, 12], [1034, 1044])
    assert volume.value_range == (24, 1024 + 50)
    pixels = render_stack(volume).pixels
    assert pixels[0, 8, 12, 0] == round(255 * (1034 - 24) / 1050)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_skipped(phantom: Path, write_slice: WriteSlice) -> None:
    write_slice(30, "secret").chmod(0)
    assert reasons(find_series(phantom)) == {"secret": "cannot be opened; check its permissions"}
