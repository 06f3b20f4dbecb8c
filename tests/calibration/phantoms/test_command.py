import json

import pytest
from click.testing import CliRunner

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.runtime.cli import cli


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
