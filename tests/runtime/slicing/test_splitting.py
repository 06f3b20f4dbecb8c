"""Stacks of one series told apart without a shared position, and held together in spite of noise."""

import numpy as np
import pytest
from pydicom.uid import MRImageStorage, generate_uid

from edge_medgemma.runtime.slicing.choose import choose_series
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import Modality, Series


def names(series: Series) -> set[str]:
    return {problem.name for problem in series.problems}


def write_interleaved(write_slice, first: dict, second: dict, steps=(5.0, 5.0), offset_mm=2.0):
    """Ten slices with the first attributes, ten with the second, between them."""
    for index in range(20):
        part, place = index // 10, index % 10
        position = [-30.0, -20.0, steps[part] * place + offset_mm * part]
        changes = {"ImagePositionPatient": position, **(second if part else first)}
        path = write_slice(index, **changes)
    return find_series(path.parent).series


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
        ({"ConvolutionKernel": "H31s"}, {"ConvolutionKernel": "H60s"}),
        ({"SliceThickness": 5.0}, {"SliceThickness": 1.25}),
        ({"ContrastBolusAgent": None}, {"ContrastBolusAgent": "Iohexol"}),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
        ({}, {}),
    ],
    ids=["acquisition", "kernel", "thickness", "contrast", "time", "image type", "numbers alone"],
)  # fmt: skip
def test_stacks_that_overlap_are_two(write_slice, first, second) -> None:
    both = write_interleaved(write_slice, first, second)
    assert [one.shape[0] for one in both] == [10, 10]
    assert all(one.spacing_mm[0] == 5.0 for one in both)
    assert all({"series_split", "mixed_series"} <= names(one) for one in both)


def test_a_thin_stack_inside_a_thick_one_is_two(write_slice) -> None:
    thin, thick = {"SliceThickness": 1.0}, {"SliceThickness": 5.0}
    both = write_interleaved(write_slice, thin, thick, steps=(1.0, 5.0), offset_mm=0.3)
    assert sorted(one.spacing_mm[0] for one in both) == [1.0, 5.0]


def test_parts_behind_each_other_are_one(write_slice) -> None:
    """The base of a head in thin slices, the rest in thick ones, an acquisition each."""
    for index in range(20):
        z = 2.0 * index if index < 10 else 20.0 + 5.0 * (index - 10)
        path = write_slice(
            index,
            ImagePositionPatient=[0, 0, z],
            SliceThickness=2.0 if index < 10 else 5.0,
            AcquisitionNumber=1 + index // 10,
        )
    (series,) = find_series(path.parent).series
    assert series.shape[0] == 20


def test_parts_far_from_each_other_are_two(write_slice) -> None:
    for index in range(20):
        z = 5.0 * index + (300.0 if index >= 10 else 0.0)
        path = write_slice(index, ImagePositionPatient=[0, 0, z], AcquisitionNumber=1 + index // 10)
    assert [one.shape[0] for one in find_series(path.parent).series] == [10, 10]


def test_turns_of_one_mr_stack_are_one(write_slice) -> None:
    for index in range(20):
        path = write_slice(index, SOPClassUID=MRImageStorage, AcquisitionNumber=1 + index % 2)
    (series,) = find_series(path.parent).series
    assert series.shape[0] == 20


def jittered(index: int, value: float, noise: float) -> float:
    return value + noise * ((index * 7919) % 11 - 5) / 5


@pytest.mark.parametrize(
    "changes",
    [
        lambda i: {"PixelSpacing": ["0.3905", "0.3905"] if i % 2 else ["0.39049999", "0.39049999"]},
        lambda i: {"EchoTime": jittered(i, 9.6, 0.03), "SOPClassUID": MRImageStorage},
        lambda i: {"FrameOfReferenceUID": generate_uid(entropy_srcs=[str(i)])},
        lambda i: {"ImageOrientationPatient": [1, jittered(i, 0, 0.002), 0, 0, 1, 0]},
        lambda i: {"SliceThickness": jittered(i, 5, 0.01)},
        lambda i: {"AcquisitionNumber": i},
        lambda i: {"SeriesInstanceUID": f"1.2.7.{i}"},
        lambda i: {"SeriesInstanceUID": f"1.2.7.{i}", "FrameOfReferenceUID": f"1.2.8.{i}"},
        lambda i: {"TriggerTime": 10.0 * i, "SOPClassUID": MRImageStorage},
    ],
    ids=["spacing", "echo time", "frame of reference", "orientation", "thickness", "acquisition",
         "series uid", "series uid and frame of reference", "trigger time"],
)  # fmt: skip
def test_noise_tears_no_stack(write_slice, changes) -> None:
    for index in range(24):
        path = write_slice(index, **changes(index))
    (series,) = find_series(path.parent).series
    assert series.shape[0] == 24
    assert series.spacing_mm[0] == pytest.approx(2.5, abs=1e-3)
    assert "no_positions" not in names(series)


def test_three_single_slices_in_three_planes_are_not_a_stack(write_slice) -> None:
    planes = [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]]
    for index, plane in enumerate(planes):
        path = write_slice(index, SeriesInstanceUID=f"1.2.7.{index}", ImageOrientationPatient=plane)
    assert len(find_series(path.parent).series) == 3


def test_slice_location_stands_in_for_one_position(write_slice) -> None:
    for index in range(8):
        path = write_slice(
            index, ImagePositionPatient=[-30, -20, 7], SliceLocation=100 - 4.0 * index
        )
    (series,) = find_series(path.parent).series
    assert "positions_from_slice_location" in names(series)
    assert series.spacing_mm[0] == 4
    np.testing.assert_allclose(np.diff(series.positions_mm), 4)


def test_frames_of_a_classic_object_are_placed_by_their_spacing(write_slice) -> None:
    pixels = np.zeros((8, 16, 16), np.int16)
    path = write_slice(
        0, SOPClassUID=MRImageStorage, NumberOfFrames=8, SpacingBetweenSlices=6.0, pixels=pixels
    )
    (series,) = find_series(path).series
    assert series.shape == (8, 16, 16)
    assert (series.spacing_mm[0], "frames_placed_by_spacing" in names(series)) == (6.0, True)


def test_frames_in_time_are_not_a_stack(write_slice) -> None:
    path = write_slice(
        0, SOPClassUID=MRImageStorage, NumberOfFrames=8, SpacingBetweenSlices=6.0, FrameTime=40.0,
        FrameIncrementPointer=0x00181063, pixels=np.zeros((8, 16, 16), np.int16),
    )  # fmt: skip
    (series,) = find_series(path).series
    assert (series.shape[0], names(series)) == (1, {"time_series"})


def test_decimal_commas_are_read(write_slice) -> None:
    for index in range(4):
        path = write_slice(index)
        content = path.read_bytes()
        assert content.count(b"0.5\\0.52") == 1
        path.write_bytes(content.replace(b"0.5\\0.52", b"0,5\\0,52"))
    (series,) = find_series(path.parent).series
    assert series.spacing_mm == (2.5, 0.5, 0.52)


def test_a_stack_upwards_and_one_downwards_are_two(write_slice) -> None:
    for index in range(20):
        z = 4.0 * index if index < 10 else 38.0 - 4.0 * (index - 10)
        path = write_slice(index, ImagePositionPatient=[0, 0, z], SliceThickness=4.0)
    both = find_series(path.parent).series
    assert [one.shape[0] for one in both] == [10, 10]


@pytest.mark.parametrize("overlap", [1, 2])
def test_blocks_that_overlap_by_a_slice_or_two_are_one(write_slice, overlap) -> None:
    """Neck and head in one series, an acquisition each."""
    for index in range(20):
        z = 4.0 * (index - overlap * (index >= 10))
        path = write_slice(index, ImagePositionPatient=[0, 0, z], AcquisitionNumber=1 + index // 10)
    (series,) = find_series(path.parent).series
    assert series.shape[0] == 20 - overlap
    assert "duplicate_slices" in names(series)


def test_two_scans_of_thin_and_thick_slices_at_the_same_places_are_two(write_slice) -> None:
    """The base in thin slices, the rest in thick ones, scanned twice."""
    for index in range(24):
        place = index % 12
        z = 2.0 * place if place < 6 else 12.0 + 5.0 * (place - 6)
        path = write_slice(
            index, ImagePositionPatient=[0, 0, z], SliceThickness=2.0 if place < 6 else 5.0
        )
    both = find_series(path.parent).series
    assert [one.shape[0] for one in both] == [12, 12]


@pytest.mark.parametrize(
    "changes",
    [
        lambda index: {"SliceThickness": 5.0 + 0.07 * (index % 3)},
        lambda index: {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", *(["ADD"] * (index % 2))]},
    ],
    ids=["thickness", "image type"],
)
def test_slices_without_a_gap_that_take_turns_are_one_stack(write_slice, changes) -> None:
    for index in range(12):
        position = [0, 0, 5.0 * index]
        path = write_slice(index, ImagePositionPatient=position, **changes(index))
    (series,) = find_series(path.parent).series
    assert series.shape[0] == 12


def test_a_frame_of_reference_of_their_own_in_a_few_slices_is_ignored(write_slice) -> None:
    for index in range(12):
        uid = generate_uid() if index < 3 else "1.2.3.5"
        path = write_slice(index, FrameOfReferenceUID=uid)
    (series,) = find_series(path.parent).series
    assert series.shape[0] == 12
    assert "frame_of_reference_varies" in names(series)


@pytest.mark.parametrize("phase_first", [True, False])
def test_a_phase_image_is_not_taken_where_there_is_a_magnitude(write_slice, phase_first) -> None:
    for index in range(12):
        is_phase = (index < 6) == phase_first
        kind = ["ORIGINAL", "PRIMARY", "P" if is_phase else "M", "ND"]
        position = [0, 0, 5.0 * (index % 6)]
        path = write_slice(
            index, SOPClassUID=MRImageStorage, ImageType=kind, ImagePositionPatient=position
        )
    series = find_series(path.parent).series
    chosen, reason = choose_series(series, [Modality.MR])
    assert len(series) == 2 and chosen is not None and chosen.is_original
    assert "1 derived" in reason
