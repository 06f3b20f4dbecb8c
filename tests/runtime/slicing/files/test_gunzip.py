"""Gzipped NIfTI files: read at any place as Python's reader does, bounded, and only if they are right."""

import gzip
import io
import random
from pathlib import Path

import nibabel
import numpy as np
import pytest

from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.files.gunzip import GunzippedFile
from edge_medgemma.runtime.slicing.nifti import read_nifti_series
from edge_medgemma.runtime.slicing.scan import find_series, read_volume

CONTENT = random.Random(0).randbytes(50_000) + bytes(3_000_000) + b"end"


@pytest.mark.parametrize("level", [0, 6])
def test_it_reads_at_any_place(level: int) -> None:
    packed = gzip.compress(CONTENT[:70_000], level) + gzip.compress(CONTENT[70_000:], level)
    file = io.BufferedReader(GunzippedFile(io.BytesIO(packed), 10**8))
    generator = random.Random(1)
    for _ in range(30):
        place, size = generator.randrange(len(CONTENT)), generator.choice([1, 300, 200_000])
        file.seek(place)
        assert file.read(size) == CONTENT[place : place + size]
    file.seek(0)
    assert file.read() == CONTENT


def test_it_ends_where_it_would_inflate_too_much() -> None:
    file = GunzippedFile(io.BytesIO(gzip.compress(CONTENT)), 10**6)
    with pytest.raises(UnreadableFileError, match="inflates to more than"):
        file.seek(2 * 10**6)


def test_empty_streams_count(monkeypatch: pytest.MonkeyPatch) -> None:
    file = GunzippedFile(io.BytesIO(gzip.compress(b"start") + gzip.compress(b"") * 1000), 10**6)
    with pytest.raises(UnreadableFileError, match="inflates to more than"):
        while file._next(1000):
            pass


def saved(path: Path, level: int, times: int = 1) -> bytes:
    values = np.arange(6 * 7 * 8 * times, dtype=np.int16).reshape(6, 7, 8, times)
    nibabel.save(nibabel.Nifti1Image(values.squeeze(), np.diag([1.0, 1, 3, 1])), path)
    packed = gzip.compress(path.read_bytes(), level)
    path.write_bytes(packed)
    return packed


@pytest.mark.parametrize("times", [1, 3])
def test_a_voxel_that_flipped_is_not_believed(tmp_path: Path, times: int) -> None:
    path = tmp_path / "a.nii"
    packed = bytearray(saved(path, 0, times))
    assert read_volume(find_series(path).series[0]).array.max() == (6 * 7 * 8 - 1) * times
    packed[500] ^= 1
    path.write_bytes(packed)
    with pytest.raises(UnreadableFileError, match="damaged gzip file"):
        read_nifti_series(path)


def test_a_truncated_later_time_point_leaves_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(saved(path, 0, 3)[:-300])
    (series,) = find_series(path).series
    assert [problem.name for problem in series.problems].count("time_series") == 1
