"""`evaluate` on phantoms in the layouts of public datasets, from the command to its table."""

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_medgemma.calibration.phantoms.dataset import write_dataset
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.errors import ScanError

SEED = 3_000_007


def _evaluate(engine: Path, scans: Path, out: Path, *arguments: str) -> Result:
    words = ["evaluate", str(scans), "--engine", str(engine), "--out", str(out), "--threads", "1"]
    return CliRunner().invoke(cli, [*words, *arguments])


def _present(out: Path) -> dict[tuple[str, str], str]:
    """Study and finding -> what the labels say."""
    with (out / "predictions.csv").open(newline="") as file:
        return {(row["study"], row["finding"]): row["present"] for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("layout", "arguments"),
    [
        ("nih", ()),
        ("chexpert", ()),
        ("open-i", ()),
        ("table", ("--protocol", "chest_xray")),
        ("ct-rate", ("--slices", "4")),
    ],
)
def test_a_layout_is_evaluated_as_it_lies_on_disk(
    tmp_path: Path, tiny_engine_directory: Path, layout: str, arguments: tuple[str, ...]
) -> None:
    """The table is one of the pictures of the NIH layout, whose `truth.csv` has its form."""
    drawn = "nih" if layout == "table" else layout
    studies = write_dataset(drawn, 2, SEED, tmp_path / "in")
    words = ["--dataset", layout, *arguments]
    if layout == "table":
        words += ["--labels", str(tmp_path / "in" / "truth.csv")]
    result = _evaluate(tiny_engine_directory, tmp_path / "in", tmp_path / "out", *words)
    assert result.exit_code == 0, (result.output, result.exception)
    present = _present(tmp_path / "out")
    asked = {finding for _, finding in present}
    read = 0
    for study in studies:
        for code, value in study.findings.items():
            if code in asked:
                assert present[study.key, code] in (str(int(value)), ""), (study.key, code)
                read += present[study.key, code] != ""
    assert read >= 6


def test_a_folder_one_level_too_deep_is_refused_with_a_hint(
    tmp_path: Path, tiny_engine_directory: Path
) -> None:
    write_dataset("chexpert", 1, SEED, tmp_path / "in")
    patient = tmp_path / "in" / "valid" / "patient00001" / "study1"
    result = _evaluate(
        tiny_engine_directory, patient, tmp_path / "out",
        "--dataset", "chexpert", "--labels", str(tmp_path / "in"),
    )  # fmt: skip
    assert isinstance(result.exception, ScanError)
    assert "one folder too deep or too shallow" in str(result.exception)
    assert not (tmp_path / "out").exists()
