"""An archive without labels is triaged all the same."""

from pathlib import Path

from click.testing import CliRunner
from support.labelled_phantoms import draw_labelled

from edge_medgemma.calibration.evaluation.predictions import read_predictions
from edge_medgemma.runtime.cli import cli


def test_every_study_is_triaged_and_no_figure_is_given(tmp_path: Path) -> None:
    draw_labelled(tmp_path, [["intracranial_haemorrhage"], []])
    out = tmp_path / "out"
    arguments = ["evaluate", str(tmp_path / "scans"), "--dataset", "none", "--out", str(out)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "no protocol asks for" not in done.output
    rows = read_predictions(out / "predictions.csv")
    assert {row.study for row in rows} == {"unlabelled 1", "unlabelled 2"}
    assert {row.present for row in rows} == {None}
    flagged = {row.study for row in rows if row.finding == "intracranial_haemorrhage"
               and row.outcome == "flagged"}  # fmt: skip
    assert len(flagged) == 1
