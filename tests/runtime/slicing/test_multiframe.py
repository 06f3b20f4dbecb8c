"""Enhanced objects keep geometry and rescale in functional groups."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage

from edge_medgemma.runtime.slicing.scan import find_series, read_volume

WriteSlice = Callable[..., Path]


def item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def frame_group(z_mm: float, intercept: float) -> Dataset:
    return item(
        PlanePositionSequence=Sequence([item(ImagePositionPatient=[0, 0, z_mm])]),
        PixelValueTransformationSequence=Sequence(
            [item(RescaleSlope=2, RescaleIntercept=intercept, RescaleType="HU")]
        ),
    )


def write_enhanced(write_slice: WriteSlice, positions_mm: list[float]) -> Path:
    pixels = np.zeros((len(positions_mm), 8, 8), np.int16)
    pixels += np.arange(len(positions_mm), dtype=np.int16)[:, None, None]
    return write_slice(
        0,
        SOPClassUID=EnhancedCTImageStorage,
        NumberOfFrames=len(positions_mm),
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        RescaleSlope=None,
        RescaleIntercept=None,
        SharedFunctionalGroupsSequence=Sequence(
            [
                item(
                    PlaneOrientationSequence=Sequence(
                        [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
                    ),
                    PixelMeasuresSequence=Sequence(
                        [item(PixelSpacing=[0.5, 0.25], SliceThickness=9)]
                    ),
                )
            ]
        ),
        PerFrameFunctionalGroupsSequence=Sequence(
            [frame_group(z, -1000 - 100 * index) for index, z in enumerate(positions_mm)]
        ),
        pixels=pixels,
    )


def test_frames_are_ordered_and_rescaled_one_by_one(write_slice: WriteSlice) -> None:
    path = write_enhanced(write_slice, [6.0, 0.0, 3.0])
    (series,) = find_series(path).series
    assert series.shape == (3, 8, 8)
    assert series.spacing_mm == (3, 0.5, 0.25)
    assert [source.frame for source in series.sources] == [1, 2, 0]
    assert series.problems == ()
    # stored value = frame, slope 2, intercept -1000 - 100·frame; floor at air
    np.testing.assert_array_equal(read_volume(series).array[:, 0, 0], [-1024, -1024, -1000])
    np.testing.assert_array_equal(read_volume(series, [2]).array[:, 0, 0], [-1000])


def test_frames_at_one_position_are_one_slice_and_named(write_slice: WriteSlice) -> None:
    path = write_enhanced(write_slice, [0.0, 3.0, 3.0])
    listing = find_series(path)
    (series,) = listing.series
    assert series.shape[0] == 2
    assert [problem.name for problem in series.problems] == ["duplicate_slices"]
    assert [file.path for file in listing.skipped] == [path.name]
