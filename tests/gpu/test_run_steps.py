"""The driver with tiny commands, and every command line that it would give to a GPU."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from gpu import torch_baseline
from gpu.run_steps import Runner
from gpu.steps import DEVICE, DRY_RUN, HERE, Step, Subject, steps
from gpu.summary import summary

from edge_medgemma.runtime.cli import cli

SCHEMA = json.loads((HERE / "results.schema.json").read_text())
ENOUGH_S = 600.0


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def run(state: Path, *planned: Step, total_s: float = ENOUGH_S, again: str = "") -> dict[str, Any]:
    """Results by name, as they stand in the file, which follows its schema."""
    runner = Runner(state, state / "out", "dry-run", total_s)
    runner.run(planned, [again] if again else [])
    document = json.loads((state / "out" / "results.json").read_text())
    jsonschema.validate(document, SCHEMA)
    assert summary(document["steps"])
    return {one["name"]: one for one in document["steps"]}


def test_a_step_that_fails_stops_only_those_that_need_it(tmp_path: Path) -> None:
    written = tmp_path / "written.json"
    found = run(
        tmp_path,
        Step("fails", python("import sys; sys.exit('error: no such card')"), ENOUGH_S),
        Step("needs it", python("pass"), ENOUGH_S, needs=("fails",)),
        Step("is missing", ("/nowhere/nvidia-smi",), ENOUGH_S),
        Step(
            "writes",
            python(f"open({str(written)!r}, 'w').write('{{\"a\": 1}}')"),
            ENOUGH_S,
            written,
        ),
    )
    assert [one["status"] for one in found.values()] == ["failed", "skipped", "failed", "passed"]
    assert (found["fails"]["exit_status"], found["fails"]["log_tail"]) == (
        1,
        ["error: no such card"],
    )
    assert found["needs it"]["reason"] == "needs fails"
    assert found["is missing"]["log_tail"] == [
        "error: '/nowhere/nvidia-smi' does not start: No such file or directory"
    ]
    assert found["writes"]["document"] == {"a": 1}
    assert "error: no such card" in (tmp_path / "out" / "log.txt").read_text()


def test_a_step_ends_at_its_limit(tmp_path: Path) -> None:
    waits = Step("waits", python("import time; time.sleep(3600)"), 0.2)
    found = run(tmp_path, waits)["waits"]
    assert (found["status"], found["exit_status"]) == ("timed_out", None)


def test_a_step_that_fails_keeps_what_it_wrote(tmp_path: Path) -> None:
    written = tmp_path / "rows.json"
    fails = f"open({str(written)!r}, 'w').write('{{}}'); raise SystemExit(1)"
    found = run(tmp_path, Step("fails", python(fails), ENOUGH_S, written))["fails"]
    assert (found["status"], found["document"]) == ("failed", {})


def test_a_second_run_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    count = tmp_path / "count"
    counts = Step("counts", python(f"open({str(count)!r}, 'a').write('x')"), ENOUGH_S)
    later = Step("later", python("pass"), ENOUGH_S)
    assert run(tmp_path, counts)["counts"]["status"] == "passed"
    assert run(tmp_path, counts, later, total_s=0)["later"]["reason"] == "no time left"
    assert run(tmp_path, counts, later)["later"]["status"] == "passed"
    assert count.read_text() == "x"
    run(tmp_path, counts, later, again="counts")
    assert count.read_text() == "xx"


def test_a_folder_that_an_interrupted_step_left_is_made_anew(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.mkdir()
    makes = Step("makes", python(f"import os; os.mkdir({str(engine)!r})"), ENOUGH_S, makes=engine)
    assert run(tmp_path, makes)["makes"]["status"] == "passed"


@pytest.mark.parametrize("subject", [DEVICE, DRY_RUN], ids=lambda one: one.provider)
def test_every_command_line_is_understood(subject: Subject, tmp_path: Path) -> None:
    planned = steps(subject, tmp_path, sys.executable)
    names = [one.name for one in planned]
    assert len(set(names)) == len(names)
    for step in planned:
        assert set(step.needs) <= set(names[: names.index(step.name)])
        if Path(step.command[0]).name == "edge-medgemma":
            _, subcommand, *arguments = step.command
            found = cli.get_command(click.Context(cli), subcommand)
            assert found is not None, subcommand
            found.make_context(subcommand, arguments)


def test_the_small_engine_is_exported_and_tested(tmp_path: Path) -> None:
    wanted = ("small export", "small self-test", "cuda refusal")
    planned = [one for one in steps(DRY_RUN, tmp_path, sys.executable) if one.name in wanted]
    found = run(tmp_path, *planned)
    assert found["small self-test"]["document"]["kl_nats"] < 1e-3, found["small self-test"]
    (refusal,) = found["cuda refusal"]["log_tail"]
    assert refusal.startswith("error: ")


def test_torch_runs_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "torch.json"
    dtype = torch_baseline.torch.get_default_dtype()
    try:
        torch_baseline.main(
            ["--shape", "tiny", "--device", "cpu", "--no-compile", "--json", str(path)]
        )
    finally:
        torch_baseline.torch.set_default_dtype(dtype)
    rows = json.loads(path.read_text())["rows"]
    assert [one["name"] for one in rows] == ["tg4", "pp16", "ve1", "tg4@d32"]
