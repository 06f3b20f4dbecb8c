"""`phantom dataset`: the same files from the same seed, however many processes write them."""

import csv
import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_medgemma.calibration.phantoms import dataset
from edge_medgemma.calibration.phantoms.chest import (
    CARDIOMEGALY,
    EFFUSION,
    FINDINGS,
    NODULE,
    draw_chest,
    project,
)
from edge_medgemma.calibration.phantoms.dataset import write_dataset
from edge_medgemma.runtime.cli import cli

SPACING_MM = (4.0, 8.0, 4.0)


def _contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.command("phantom dataset")
def test_the_command_writes_a_layout_once(tmp_path: Path) -> None:
    arguments = ["phantom", "dataset", "--layout", "nih", "--count", "2", "-o", str(tmp_path / "n")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "2 studies in the layout nih in" in result.output
    assert "truth.csv says what was drawn" in result.output
    assert len(list((tmp_path / "n" / "images").iterdir())) == 2
    again = CliRunner().invoke(cli, arguments)
    assert "exists already" in str(again.exception)


def test_processes_write_what_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset("chexpert", 4, 3_000_000, tmp_path / "one")
    monkeypatch.setattr(dataset, "INLINE", 1)
    monkeypatch.setattr(dataset, "usable_cores", lambda: 2)
    steps: list[tuple[int, int]] = []
    write_dataset(
        "chexpert", 4, 3_000_000, tmp_path / "two", lambda done, all_: steps.append((done, all_))
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")


def test_a_failed_dataset_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset, "write_csv", fail)
    with pytest.raises(OSError, match="No space left"):
        write_dataset("nih", 1, 3_000_000, tmp_path / "one")
    assert not list(tmp_path.iterdir())


def test_truth_is_what_was_drawn(tmp_path: Path) -> None:
    studies = write_dataset("nih", 2, 3_000_000, tmp_path / "one")
    with (tmp_path / "one" / "truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for study, row in zip(studies, rows, strict=True):
        assert row.pop("study") == study.key
        assert {code: cell == "1" for code, cell in row.items()} == study.findings


def test_every_finding_of_a_chest_changes_it() -> None:
    healthy = draw_chest(1, SPACING_MM, is_upright=True, findings=frozenset())
    again = draw_chest(1, SPACING_MM, is_upright=True, findings=frozenset())
    assert (healthy.hounsfield == again.hounsfield).all()
    for code in FINDINGS:
        sick = draw_chest(1, SPACING_MM, is_upright=True, findings=frozenset((code,)))
        assert (sick.hounsfield != healthy.hounsfield).sum() > 30, code


def test_fluid_lies_where_gravity_takes_it() -> None:
    def fluid(*, is_upright: bool) -> tuple[float, float]:
        """Mean row (to the back) and mean slice (to the head) of what the effusion changed."""
        pair = [
            draw_chest(2, SPACING_MM, is_upright=is_upright, findings=frozenset(codes)).hounsfield
            for codes in ((), (EFFUSION,))
        ]
        slices, rows, _ = (pair[0] != pair[1]).nonzero()
        return float(rows.mean()), float(slices.mean())

    upright, lying = fluid(is_upright=True), fluid(is_upright=False)
    assert upright[1] < lying[1], "on the diaphragm of somebody who stands"
    assert lying[0] > upright[0], "at the back of somebody who lies"


def test_a_large_heart_is_wide_and_left_of_the_middle_on_the_right() -> None:
    pictures = [
        project(draw_chest(3, SPACING_MM, is_upright=True, findings=frozenset(codes))).astype(int)
        for codes in ((), (CARDIOMEGALY,), (NODULE,))
    ]
    added = (pictures[1] - pictures[0]) > 25
    assert added.sum() > 50
    assert added.nonzero()[1].mean() > pictures[0].shape[1] / 2
    assert added.nonzero()[0].mean() > pictures[0].shape[0] / 2, "head up"
