"""Enhanced objects keep geometry and rescale in functional groups."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage

from edge_medgemma.runtime.slicing import grouping
from edge_medgemma.runtime.slicing.scan import find_series, read_volume

WriteSlice = Callable[..., Path]


def item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def frame_group(z_mm: float, intercept: float, content: dict[str, object]) -> Dataset:
    return item(
        FrameContentSequence=Sequence([item(**content)]),
        PlanePositionSequence=Sequence([item(ImagePositionPatient=[0, 0, z_mm])]),
        PixelValueTransformationSequence=Sequence(
            [item(RescaleSlope=2, RescaleIntercept=intercept, RescaleType="HU")]
        ),
    )


def write_enhanced(
    write_slice: WriteSlice,
    positions_mm: list[float],
    contents: list[dict[str, object]] | None = None,
    **changes: object,
) -> Path:
    """Frame f has the value f; `contents` are attributes of each frame's content."""
    contents = contents or [{}] * len(positions_mm)
    pixels = np.zeros((len(positions_mm), 8, 8), np.int16)
    pixels += np.arange(len(positions_mm), dtype=np.int16)[:, None, None]
    attributes: dict[str, object] = {
        "SOPClassUID": EnhancedCTImageStorage,
        "NumberOfFrames": len(positions_mm),
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "PixelSpacing": None,
        "RescaleSlope": None,
        "RescaleIntercept": None,
        "SharedFunctionalGroupsSequence": Sequence(
            [
                item(
                    PlaneOrientationSequence=Sequence(
                        [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
                    ),
                    PixelMeasuresSequence=Sequence(
                        [item(PixelSpacing=[0.5, 0.49], SliceThickness=9)]
                    ),
                )
            ]
        ),
        "PerFrameFunctionalGroupsSequence": Sequence(
            [
                frame_group(z, -1000 - 100 * index, content)
                for index, (z, content) in enumerate(zip(positions_mm, contents, strict=True))
            ]
        ),
        "pixels": pixels,
    }
    return write_slice(0, **{**attributes, **changes})


def test_frames_are_ordered_and_rescaled_one_by_one(write_slice: WriteSlice) -> None:
    path = write_enhanced(write_slice, [6.0, 0.0, 3.0])
    (series,) = find_series(path).series
    assert series.shape == (3, 8, 8)
    assert series.spacing_mm == (3, 0.5, 0.49)
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


def test_a_copied_object_is_hashed_once_not_once_a_frame(
    write_slice: WriteSlice, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_enhanced(write_slice, [3.0 * index for index in range(6)])
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    hashed: list[Path] = []
    digest = grouping._digest
    monkeypatch.setattr(grouping, "_digest", lambda path: (hashed.append(path), digest(path))[1])
    listing = find_series(path.parent)
    assert sorted(hashed) == sorted([path, copy])
    assert listing.series[0].shape[0] == 6
    assert len(listing.skipped) == 1


def test_stacks_of_one_object_are_volumes_of_their_own(write_slice: WriteSlice) -> None:
    contents: list[dict[str, object]] = [{"StackID": "1"}, {"StackID": "2"}] * 3
    path = write_enhanced(write_slice, [0.0, 1, 2, 3, 4, 5], contents)
    both = find_series(path).series
    frames = [[source.frame for source in series.sources] for series in both]
    assert sorted(frames) == [[0, 2, 4], [1, 3, 5]]
    assert {problem.name for series in both for problem in series.problems} == {"mixed_series"}


def test_of_time_points_in_one_object_the_first_is_read(write_slice: WriteSlice) -> None:
    contents: list[dict[str, object]] = [{"TemporalPositionIndex": n} for n in (2, 2, 1, 1)]
    path = write_enhanced(write_slice, [0.0, 3, 0, 3], contents, SOPClassUID=EnhancedMRImageStorage)
    (series,) = find_series(path).series
    assert [problem.name for problem in series.problems] == ["time_series"]
    assert [source.frame for source in series.sources] == [2, 3]
