"""Pictures of radiographs become DICOM objects that the ordinary route reads."""

import io
import pickle
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_medgemma.calibration.evaluation.datasets.registry import LAYOUTS
from edge_medgemma.calibration.evaluation.matching import study_names
from edge_medgemma.calibration.evaluation.radiographs import (
    PICTURE_FILE,
    as_dicom,
    find_pictures,
    is_picture_folder,
    read_grey,
)
from edge_medgemma.calibration.evaluation.records import LabelRow, Labels
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.files.unpack_folder import PREFIX
from edge_medgemma.runtime.slicing.scan import read_volume
from edge_medgemma.runtime.slicing.volume import BodyPart, View
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.worklist import plan_studies

CHEST = replace(LAYOUTS["table"], protocol="chest_xray", has_pictures=True)
RAMP = np.linspace(0, 255, 60 * 40).astype(np.uint8).reshape(60, 40)


def _labels(**attributes: str) -> Labels:
    row = LabelRow("one.png", {"pneumothorax": True}, attributes=attributes)
    return Labels("table", (row,), ("pneumothorax",), "")


def _saved(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def test_a_picture_goes_the_ordinary_route(tmp_path: Path) -> None:
    _saved(tmp_path / "in" / "one.png", RAMP)
    labels = _labels(view="AP", width_mm="200", height_mm="600")
    listing = find_pictures(tmp_path, CHEST, labels)
    (task,) = plan_studies(listing)
    assert task.protocol is not None and task.protocol.name == "chest_xray"
    assert {"one", "one.png", "in"} <= study_names(task, tmp_path).names
    with as_dicom(pickle.loads(pickle.dumps(task))) as real:
        assert real.series is not None and real.series.views == (View.AP,)
        assert real.series.body_part is BodyPart.CHEST
        assert real.series.spacing_mm[1:] == (10.0, 5.0)
        assert PICTURE_FILE in real.problems
        folder = real.series.sources[0].path.parent
        assert folder.parent.name.startswith(PREFIX), "a killed process's is swept by the next"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        values = read_volume(real.series).array[0]
    assert np.abs(values - RAMP / 255).max() < 1e-6
    assert not folder.exists()


def test_pictures_of_one_examination_are_read_together(tmp_path: Path) -> None:
    for name, shape in (("a/view1_frontal.jpg", (60, 40)), ("a/view2_lateral.jpg", (50, 50))):
        _saved(tmp_path / name, np.resize(RAMP, shape))
    layout = replace(
        CHEST,
        study_of=lambda name: name.split("/")[0],
        view_of=lambda name, _: View.LATERAL if "lateral" in name else View.PA,
    )
    (task,) = plan_studies(find_pictures(tmp_path, layout, _labels()))
    with as_dicom(task) as real:
        assert real.series is not None
        assert real.series.views == (View.PA, View.LATERAL)
        assert real.series.shape[0] == 2


def test_an_unknown_part_asks_for_a_protocol(tmp_path: Path) -> None:
    _saved(tmp_path / "one.png", RAMP)
    listing = find_pictures(tmp_path, LAYOUTS["table"], _labels())
    assert plan_studies(listing)[0].protocol is None
    (task,) = plan_studies(listing, load_protocol("chest_xray"))
    with as_dicom(task) as real:
        assert real.series is not None and real.series.views == (View.UNKNOWN,)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path: _saved(path, np.stack([RAMP] * 3, 2)), RAMP),
        (lambda path: _saved(path, np.stack([RAMP] * 3 + [RAMP * 0 + 255], 2)), RAMP),
        (lambda path: _saved(path, RAMP, "P"), RAMP),
        (lambda path: _saved(path, RAMP.astype(np.uint16) * 257), RAMP.astype(np.uint16) * 257),
    ],
    ids=["equal channels", "opaque", "palette", "16 bit"],
)
def test_grey_values_are_kept(
    tmp_path: Path, write: Callable[[Path], Path], expected: np.ndarray
) -> None:
    grey = read_grey(write(tmp_path / "one.png"))
    assert grey.dtype == expected.dtype
    assert np.array_equal(grey, expected)


def _colour(path: Path) -> None:
    _saved(path, np.stack([RAMP, RAMP // 2, RAMP], 2))


def _transparent(path: Path) -> None:
    _saved(path, np.stack([RAMP] * 4, 2))


def _cut(path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 40), np.uint8)).save(
        whole, "PNG"
    )
    path.write_bytes(whole.getvalue()[:900])


@pytest.mark.parametrize(
    ("spoil", "reason"), [(_colour, "colour"), (_transparent, "transparent"), (_cut, "damaged")]
)
def test_what_is_no_radiograph_is_not_guessed_at(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(tmp_path / "one.png")
    with pytest.raises(UnreadableFileError, match=reason):
        read_grey(tmp_path / "one.png")
    (task,) = plan_studies(find_pictures(tmp_path, CHEST, _labels()))
    with as_dicom(task) as real:
        assert real.series is None
        assert [problem.name for problem in real.problems] == ["no_series"]


def test_files_that_are_no_picture_are_listed(tmp_path: Path) -> None:
    _saved(tmp_path / "one.png", RAMP)
    (tmp_path / "two.png").write_text("a letter")
    (skipped,) = find_pictures(tmp_path, CHEST, _labels()).skipped
    assert skipped.path == "two.png" and "neither PNG nor JPEG" in skipped.reason


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    assert not is_picture_folder(tmp_path)
    with pytest.raises(ScanError, match="no PNG or JPEG"):
        find_pictures(tmp_path, CHEST, _labels())


def test_a_folder_with_scans_is_none_of_pictures(tmp_path: Path, phantom_scan: Path) -> None:
    _saved(tmp_path / "one.png", RAMP)
    assert is_picture_folder(tmp_path)
    (tmp_path / "scan").write_bytes(next(iter(sorted(phantom_scan.iterdir()))).read_bytes())
    assert not is_picture_folder(tmp_path)
