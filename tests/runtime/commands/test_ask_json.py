"""`ask --json-schema` on the built-in engine: valid JSON or one clear line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.schemas import schema_errors

from edge_medgemma.runtime.commands import ask
from edge_medgemma.runtime.errors import AnswerError, ProtocolError
from edge_medgemma.runtime.triage.answer_schema import findings_schema
from edge_medgemma.runtime.triage.protocol import load_protocol


@pytest.fixture(scope="module")
def scan(phantom_scan: Path) -> Path:
    return phantom_scan


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(ask.command, [*map(str, arguments), "--slices", "6"])


@pytest.mark.parametrize("seed", range(3))
def test_findings_are_valid_whatever_the_model_knows(scan: Path, seed: int) -> None:
    warm = ("--temperature", 1, "--seed", seed, "--max-tokens", 4000)
    result = invoke(scan, "Is there a fracture?", "--json-schema", "findings", *warm)
    assert result.exit_code == 0, result.output
    schema = findings_schema(load_protocol("head_ct_demo"), 6)
    assert not schema_errors(json.loads(result.stdout), schema)
    assert result.stdout.isascii()


def test_a_schema_of_ones_own(scan: Path, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    schema |= {"additionalProperties": False}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    result = invoke(scan, "A fracture?", "--json-schema", file)
    assert json.loads(result.stdout)["n"] in (1, 2)


def test_half_an_answer_is_none(scan: Path) -> None:
    result = invoke(scan, "A fracture?", "--json-schema", "findings", "--max-tokens", 40)
    assert isinstance(result.exception, AnswerError)
    assert "not whole after 40 tokens" in str(result.exception)
    assert result.stdout == ""


@pytest.mark.parametrize("text", ["{", "[1]", '{"type": "strin"}', "[" * 5000])
def test_what_is_no_schema_is_refused(scan: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "schema.json"
    file.write_text(text)
    result = invoke(scan, "A fracture?", "--json-schema", file)
    assert isinstance(result.exception, ProtocolError)
    assert result.stdout == ""


def test_a_schema_that_is_not_there_is_refused(scan: Path, tmp_path: Path) -> None:
    result = invoke(scan, "A fracture?", "--json-schema", tmp_path / "none.json")
    assert isinstance(result.exception, ProtocolError)


def test_options_that_would_break_the_json_are_refused(scan: Path) -> None:
    assert (
        invoke(scan, "A fracture?", "--json-schema", "findings", "--show-thinking").exit_code == 2
    )
