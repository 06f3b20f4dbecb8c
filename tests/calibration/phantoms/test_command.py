import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.calibration.phantoms.inserted import insert_lesions
from edge_medgemma.calibration.phantoms.real_head import open_real_head
from edge_medgemma.calibration.phantoms.seeds import EVALUATION_FIRST_SEED
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import BodyPart

HEAD_CT = Path(__file__).resolve().parents[2] / "data" / "ct_head"


@pytest.mark.command("phantom draw")
def test_draw_writes_a_series_once(tmp_path):
    arguments = [
        "phantom",
        "draw",
        str(tmp_path / "scan"),
        "--seed",
        "5",
        "--finding",
        "skull_fracture",
    ]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "slices with skull_fracture in" in result.output
    assert len(list((tmp_path / "scan").glob("*.dcm"))) == int(result.output.split()[0])
    again = CliRunner().invoke(cli, arguments)
    assert "exists already" in str(again.exception)


def test_healthy_and_finding_exclude_each_other(tmp_path):
    arguments = ["phantom", "draw", str(tmp_path / "scan"), "--healthy", "--finding", "mass_effect"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "exclude each other" in result.output


@pytest.mark.command("phantom evaluate")
def test_evaluate_prints_json():
    result = CliRunner().invoke(
        cli, ["phantom", "evaluate", "--count", "4", "--json", "--threads", "1"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["count"] == 4
    assert [finding["code"] for finding in report["findings"]] == list(FINDINGS)


def test_evaluate_prints_a_table_and_the_notice():
    result = CliRunner().invoke(cli, ["phantom", "evaluate", "--count", "2", "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert "AUC" in result.stdout
    assert "demonstration only" in result.stderr


def test_findings_are_drawn_into_a_real_head(tmp_path):
    arguments = ["phantom", "draw", str(tmp_path / "scan"), "--head", str(HEAD_CT), "--seed", "1"]
    result = CliRunner().invoke(cli, [*arguments, "--finding", "intracranial_haemorrhage"])
    assert result.exit_code == 0, result.output
    assert "slices with intracranial_haemorrhage in" in result.output
    (series,) = find_series(tmp_path / "scan").series
    assert series.body_part is BodyPart.HEAD
    assert series.shape[0] == int(result.output.split()[0])


def test_a_head_that_is_none_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = ["phantom", "draw", str(tmp_path / "scan"), "--head", str(tmp_path / "empty")]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, ScanError)
    assert not (tmp_path / "scan").exists()


def test_evaluate_counts_what_was_drawn_into_a_real_head():
    arguments = ["phantom", "evaluate", "--head", str(HEAD_CT), "--count", "3", "--json"]
    result = CliRunner().invoke(cli, [*arguments, "--threads", "1"])
    assert result.exit_code == 0, result.output
    head = open_real_head(HEAD_CT)
    drawn = [insert_lesions(head, EVALUATION_FIRST_SEED + i).findings for i in range(3)]
    found = {one["code"]: one["positives"] for one in json.loads(result.stdout)["findings"]}
    assert found == {code: sum(code in findings for findings in drawn) for code in FINDINGS}
    assert sum(found.values()) > 0
