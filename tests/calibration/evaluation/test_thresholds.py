"""From an evaluation to thresholds.json: what is fitted, what is refused, what it is bound to."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.fake_engine import FakeEngine
from support.sample_evaluation import MANIFEST, PROTOCOL, sample_evaluation
from support.schemas import assert_valid
from support.synthetic_series import write_head_ct

from edge_medgemma.calibration.evaluation.predictions import write_predictions
from edge_medgemma.calibration.evaluation.thresholds import fit_thresholds
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.documents import dump_json
from edge_medgemma.runtime.errors import ThresholdError
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.report import Effort
from edge_medgemma.runtime.triage.scoring.operating_points import (
    Target,
    fitting_points,
    read_operating_points,
)
from edge_medgemma.runtime.triage.triage_scan import triage_scan

TARGET = Target(0.9, 0.95)


@pytest.fixture(scope="module")
def sample():
    return sample_evaluation(200)


@pytest.fixture
def folder(tmp_path: Path, sample) -> Path:
    document, predictions = sample
    path = tmp_path / "evaluation"
    path.mkdir()
    (path / "evaluation.json").write_text(dump_json(document))
    write_predictions(path / "predictions.csv", predictions)
    return path


def run(*arguments: object):
    return CliRunner().invoke(cli, ["thresholds", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, ThresholdError), (result.output, result.exception)
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.mark.command("thresholds")
@pytest.mark.parametrize("split", ["cross", "half"])
def test_the_file_holds_for_this_engine_protocol_effort_and_slices(folder, split) -> None:
    result = run(folder, "--sensitivity", "0.8", "--split", split)
    assert result.exit_code == 0, (result.output, result.exception)
    path = folder / "thresholds.json"
    assert_valid(path, "thresholds")
    points = read_operating_points(folder)
    fitting = fitting_points(points, MANIFEST.sha256, PROTOCOL, (), Effort.FAST, 24)
    assert set(fitting.by_finding) == {"intracranial_haemorrhage", "mass_effect"}
    for words in ("intracranial_haemorrhage", " of ", "sensitivity at least 0.8", str(path)):
        assert words in result.stdout
    assert "skull_fracture needs 14 positives, has " in result.stderr


def test_json_is_the_file(folder) -> None:
    result = run(folder, "--sensitivity", "0.8", "--json", "--out", folder / "x" / "mine.json")
    assert json.loads(result.stdout) == json.loads((folder / "x" / "mine.json").read_text())
    assert not (folder / "thresholds.json").exists()


def test_too_few_positives_are_refused_and_nothing_is_written(folder) -> None:
    words = refusal(folder, "--sensitivity", "0.99", "--finding", "skull_fracture")
    assert words.startswith("skull_fracture needs 299 positives, has ")
    assert not (folder / "thresholds.json").exists()
    assert "no finding 'acute_infarct'" in refusal(
        folder, "--sensitivity", "0.9", "--finding", "acute_infarct"
    )


def test_an_evaluation_of_another_engine_is_refused(folder, tmp_path) -> None:
    words = refusal(folder, "--sensitivity", "0.8", "--engine", BUILTIN_ENGINE)
    assert "the evaluation is of another engine" in words
    assert not (folder / "thresholds.json").exists()


def test_a_folder_that_is_no_evaluation_is_refused(folder, tmp_path) -> None:
    assert "'edge-medgemma evaluate' wrote" in refusal(tmp_path, "--sensitivity", "0.8")
    (folder / "evaluation.json").write_text("{}")
    assert "damaged or of another version" in refusal(folder, "--sensitivity", "0.8")


def test_predictions_of_another_evaluation_are_refused(folder, sample) -> None:
    _, predictions = sample
    write_predictions(folder / "predictions.csv", predictions[:-3])
    assert "not of one evaluation" in refusal(folder, "--sensitivity", "0.8")


def test_studies_without_assessment_label_or_number_take_no_part(sample) -> None:
    document, predictions = sample
    code = "intracranial_haemorrhage"
    used = fit_thresholds(document, predictions, TARGET, "cross", [code])
    (point,) = used.points.protocols[0].findings
    mine = [one for one in predictions if one.finding == code]
    assert point.fitted_on.studies == sum(one.is_assessable for one in mine) < len(mine)
    assert used.points.labels_sha256 == document.provenance.labels_sha256
    for change in ({"is_assessable": False}, {"log_odds": None}):
        worthless = [replace(one, **change) for one in predictions]
        with pytest.raises(ThresholdError, match="needs 29 positives, has 0"):
            fit_thresholds(document, worthless, TARGET, "cross", [code])


def test_random_weights_are_refused(sample) -> None:
    document, predictions = sample
    engine = replace(document.provenance.engine, has_random_weights=True)
    random = replace(document, provenance=replace(document.provenance, engine=engine))
    with pytest.raises(ThresholdError, match="random"):
        fit_thresholds(random, predictions, TARGET, "cross")


def test_triage_takes_what_was_fitted(folder, tmp_path) -> None:
    run(folder, "--sensitivity", "0.8")
    engine = FakeEngine(MANIFEST.scope)
    scan = write_head_ct(tmp_path / "scan", lesion=range(4, 8))
    options = TriageOptions(baseline_folder=tmp_path, thresholds=folder / "thresholds.json")
    (study,) = triage_scan(engine, scan, options).studies
    fitted = {one.finding: one for one in read_operating_points(folder).protocols[0].findings}
    assert {one.code for one in study.findings if one.score == one.log_odds} == set(fitted)
    own = {one.code: one.threshold for one in PROTOCOL.findings}
    expected = own | {code: one.threshold for code, one in fitted.items()}
    assert {one.code: one.threshold for one in study.findings} == expected
    (detail,) = (one.detail for one in study.problems if one.name == "thresholds_not_used")
    assert "No threshold was fitted for Skull fracture" in detail
