import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing import scan as scan_module
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Series

WriteSlice = Callable[..., Path]


def only(scan: Path) -> Series:
    (series,) = find_series(scan).series
    return series


def names(series: Series) -> list[str]:
    return [problem.name for problem in series.problems]


def test_a_regular_series_is_described_in_millimetres(phantom: Path) -> None:
    series = only(phantom)
    assert (series.modality, series.body_part) == (Modality.CT, BodyPart.HEAD)
    assert series.shape == (9, 16, 24)
    assert series.spacing_mm == (2.5, 0.5, 0.52)  # from positions: the thickness tag says 5
    assert series.orientation == "axial"
    assert series.problems == ()
    np.testing.assert_allclose(series.positions_mm, 2.5 * np.arange(9))
    last_pixel = series.affine_lps_mm @ [8, 15, 23, 1]
    np.testing.assert_allclose(last_pixel[:3], [-30 + 23 * 0.52, -20 + 15 * 0.5, 20])


def test_slices_come_in_spatial_order_in_hounsfield_units(phantom: Path) -> None:
    volume = read_volume(only(phantom))
    np.testing.assert_array_equal(volume.array[:, 8, 12], 10 * np.arange(9))
    assert volume.array.min() == -1000
    assert volume.array.dtype == np.float32


def test_only_the_slices_asked_for_are_decoded(phantom: Path) -> None:
    series = only(phantom)
    for index, source in enumerate(series.sources):
        if index not in (2, 5):
            source.path.unlink()
    volume = read_volume(series, [5, 2])
    np.testing.assert_array_equal(volume.slice_indices, [2, 5])
    np.testing.assert_array_equal(volume.array[:, 8, 12], [20, 50])


def test_names_and_order_of_files_change_nothing(phantom: Path, tmp_path: Path) -> None:
    paths = sorted(phantom.iterdir())
    random.Random(3).shuffle(paths)
    for number, path in enumerate(paths):
        target = tmp_path / "other" / str(number % 2) / f"x{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    first, second = read_volume(only(phantom)), read_volume(only(tmp_path / "other"))
    assert first.array.tobytes() == second.array.tobytes()
    assert [s.sop_instance_uid for s in first.series.sources] == [
        s.sop_instance_uid for s in second.series.sources
    ]


def test_progress_is_counted(phantom: Path) -> None:
    listed: list[tuple[int, int]] = []
    read: list[tuple[int, int]] = []
    series = find_series(phantom, lambda done, total: listed.append((done, total))).series[0]
    read_volume(series, on_progress=lambda done, total: read.append((done, total)))
    assert listed == read == [(done, 9) for done in range(1, 10)]


def test_a_missing_path_an_empty_folder_and_an_unreadable_one(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="does not exist"):
        find_series(tmp_path / "nowhere")
    with pytest.raises(ScanError, match="is empty"):
        find_series(tmp_path)
    (tmp_path / "notes.dcm").write_text("not an image\n" * 100)
    with pytest.raises(ScanError, match=r"files skipped: 1,.*neither DICOM nor NIfTI"):
        find_series(tmp_path)
    with pytest.raises(ScanError, match="neither DICOM nor NIfTI"):
        find_series(tmp_path / "notes.dcm")


def test_each_of_many_headers_is_read_once(
    tmp_path: Path, write_slice: WriteSlice, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = write_slice(
        0, SOPInstanceUID="1.2.99.10000", ImagePositionPatient=["0", "0", "10000"]
    ).read_bytes()
    folder = tmp_path / "large"
    folder.mkdir()
    count = 500
    for number in range(10_000, 10_000 + count):
        uid, height = f"1.2.99.{number}".encode(), f"0\\0\\{number}".encode()
        content = template.replace(b"1.2.99.10000", uid).replace(b"0\\0\\10000", height)
        (folder / f"{number * 7919 % 100_003}").write_bytes(content)
    read: list[Path] = []
    original = scan_module.read_slice_headers
    monkeypatch.setattr(
        scan_module, "read_slice_headers", lambda path: read.append(path) or original(path)
    )
    assert only(folder).shape[0] == len(read) == len(set(read)) == count
