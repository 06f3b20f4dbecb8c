"""Files that commands write follow their published schemas, for each precision and target."""

import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.schemas import SCHEMAS, assert_valid

from edge_medgemma.runtime.cli import cli

TESTS = Path(__file__).resolve().parent
SCAN = TESTS / "data" / "ct_head"
CHECKPOINT = TESTS / "data" / "demo_checkpoint"

ON_CPU = [
    ("cpu", "fp32"), ("cpu", "fp16"), ("cpu", "int8"), ("cpu", "int4"),
    ("cuda", "fp16"), ("cuda", "int4"), ("tensorrt", "fp16"), ("tensorrt", "int8"), ("tensorrt", "int4"),
]  # fmt: skip
"""Targets and precisions whose graphs a CPU runs as well, with activations in float16 at most."""


def test_schemas_are_current() -> None:
    script = runpy.run_path(str(SCHEMAS.parent / "schemas.py"))
    for name in script["DOCUMENTS"]:
        published = (SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")
        assert script["schema_text"](name) == published, "run 'make schemas'"


@pytest.mark.command("export")
@pytest.mark.command("triage")
@pytest.mark.parametrize(("target", "precision"), ON_CPU)
def test_an_engine_and_its_triage_follow_their_schemas(
    tmp_path: Path, target: str, precision: str
) -> None:
    engine, out = tmp_path / "engine", tmp_path / "out"
    options = ["--target", target, "--precision", precision, "--no-reference-outputs"]
    options += [] if target == "cpu" else ["--activations", "fp16"]
    for arguments in (
        ["export", str(CHECKPOINT), "-o", str(engine), *options],
        ["triage", str(SCAN), "--engine", str(engine), "--slices", "2", "--out", str(out)],
    ):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, (result.output, result.exception)
    assert_valid(engine / "manifest.json", "manifest")
    assert_valid(out / "triage.json", "triage")
