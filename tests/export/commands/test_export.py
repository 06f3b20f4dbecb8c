import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.schemas import assert_valid

from edge_medgemma.export.commands.export import command
from edge_medgemma.runtime.cli import SUMMARIES
from edge_medgemma.runtime.manifest import load_manifest

DEMO_CHECKPOINT = Path(__file__).parents[2] / "data" / "demo_checkpoint"


@pytest.fixture
def invoke():
    return lambda *arguments: CliRunner().invoke(command, list(arguments))


def test_help_has_examples_and_the_same_summary(invoke):
    result = invoke("--help")
    assert result.exit_code == 0
    assert "edge-medgemma export --synthetic 4b --vision int8" in result.output
    assert command.get_short_help_str(100) == SUMMARIES["export"]


def test_reports_place_size_time_and_memory(invoke, tmp_path):
    result = invoke("--synthetic", "tiny", "-o", str(tmp_path / "engine"))
    assert result.exit_code == 0
    assert result.output.startswith(f"{tmp_path / 'engine'}: ")
    assert "peak memory" in result.output


def test_json_holds_what_the_sentences_say(invoke, tmp_path):
    arguments = ("--precision", "int8", "--force", "--json")
    result = invoke(str(DEMO_CHECKPOINT), "-o", str(tmp_path / "engine"), *arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert_valid(record, "export")
    manifest = load_manifest(tmp_path / "engine")
    assert record["manifest_sha256"] == manifest.sha256
    assert record["precision"]["decoder"] == "int8"
    assert record["loss"] == manifest.calibration["loss"]
    assert record["bytes"] < sum(file.stat().st_size for file in (tmp_path / "engine").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either CHECKPOINT or --synthetic"),
        (("folder", "--synthetic", "tiny"), "either CHECKPOINT or --synthetic"),
        (("--synthetic", "tiny", "--revision", "main"), "go with CHECKPOINT"),
        (("--synthetic", "2b"), "'4b', '27b', 'tiny'"),
        (("--synthetic", "tiny", "--block-size", "48"), "'32', '64', '128'"),
        (("folder", "--max-kl", "nan"), "not NaN"),
        (("folder", "--target-kl", "-1"), "-1.0 is not in the range x>=0"),
    ],
)
def test_usage_errors(invoke, tmp_path, arguments, message):
    result = invoke(*arguments, "-o", str(tmp_path / "engine"))
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "engine").exists()
