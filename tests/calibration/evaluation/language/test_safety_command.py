"""`evaluate safety`: answers of the tiny engine, and answers that are put in their place."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.schemas import assert_valid

from edge_medgemma.calibration.evaluation.language import safety_answers
from edge_medgemma.calibration.evaluation.language.answering import FreeAnswer
from edge_medgemma.calibration.evaluation.language.safety_answers import answer_requests
from edge_medgemma.calibration.evaluation.language.safety_lists import read_safety_list
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import DatasetError, EngineError, ResourceError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.outputs import FinishReason


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    """Forty unsafe requests and ten safe ones."""
    path = tmp_path / "list.csv"
    rows = [
        f"{n},{'Harm' if n < 40 else 'Help'} {n}?,{'unsafe' if n < 40 else 'safe'}"
        for n in range(50)
    ]
    path.write_text("\n".join(["id,prompt,label", *rows]) + "\n")
    return path


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of four unsafe requests are refused in words that the rule knows, one of them in others."""

    def reply(engine: Engine, text: str, max_tokens: int) -> FreeAnswer:
        number = int(text.strip("?").split()[1])
        if number >= 40:
            return FreeAnswer("Sorry." if number == 49 else "Drink water.", 2, FinishReason.STOP)
        words = ["I cannot do that.", "I'm sorry.", "This would be wrong.", "First, take"]
        return FreeAnswer(words[number % 4], 4, FinishReason.STOP)

    monkeypatch.setattr(safety_answers, "answer_text", reply)


def _run(requests: Path, engine: Path, out: Path, *more: object):
    arguments = ["evaluate", "safety", str(requests), "--engine", str(engine), "--out", str(out)]
    return CliRunner().invoke(cli, [*arguments, *map(str, more)])


def _fill(sheet: Path, filled: Path, wrong_ids: frozenset[str] = frozenset()) -> Path:
    """A sheet as a reader would fill it in, with a slip at some ids."""
    rows = list(csv.DictReader(sheet.open()))
    for row in rows:
        refuses = row["answer"] not in ("First, take", "Drink water.")
        row["refused"] = "yes" if refuses != (row["id"] in wrong_ids) else "no"
    with filled.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return filled


@pytest.mark.command("evaluate safety")
def test_a_real_engine_is_asked_and_a_sheet_written(
    tmp_path: Path, requests: Path, tiny_engine_directory: Path
) -> None:
    out = tmp_path / "out"
    result = _run(
        requests, tiny_engine_directory, out, "--max-tokens", 2, "--rows", 12,
        "--compare", tiny_engine_directory, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    assert_valid(out / "safety.json", "safety")
    document = json.loads(result.stdout)
    rows = {row["requests"]: row for row in document["first"]["rows"]}
    assert rows["unsafe"]["refused"]["trials"] == 40 and rows["safe"]["refused"]["trials"] == 10
    assert document["rule"]["labelled_answers"] == 2250
    assert document["comparison"]["unsafe"]["items"] == 40
    sheet = list(csv.DictReader((out / "readers.csv").open()))
    assert len(sheet) == 12 and not any(row["refused"] for row in sheet)
    assert not {"label", "rule"} & set(sheet[0])


def test_rates_stand_with_interval_correction_and_over_refusal(
    tmp_path: Path, requests: Path, tiny_engine_directory: Path, scripted: None
) -> None:
    out = tmp_path / "out"
    result = _run(requests, tiny_engine_directory, out)
    assert result.exit_code == 0, (result.output, result.exception)
    unsafe, safe = json.loads((out / "safety.json").read_text())["first"]["rows"]
    assert (unsafe["refused"]["successes"], unsafe["refused"]["trials"]) == (20, 40)
    assert (safe["refused"]["successes"], safe["refused"]["trials"]) == (1, 10)
    expected = (0.5 - 46 / 1087) / (948 / 1163 - 46 / 1087)
    assert unsafe["corrected"]["value"] == pytest.approx(expected)
    assert unsafe["corrected"]["low"] < 0.5 < expected < unsafe["corrected"]["high"]
    assert "over-refusal" in result.stdout and "0.884" in result.stdout
    assert "0.500 of 40 (" in result.stdout


def test_labels_of_two_people_correct_the_rule(
    tmp_path: Path, requests: Path, tiny_engine_directory: Path, scripted: None
) -> None:
    out = tmp_path / "out"
    assert _run(requests, tiny_engine_directory, out, "--rows", 50).exit_code == 0
    first = _fill(out / "readers.csv", tmp_path / "first.csv")
    second = _fill(out / "readers.csv", tmp_path / "second.csv", frozenset({"3", "7"}))
    result = _run(requests, tiny_engine_directory, out, "--labels", first, "--labels", second)
    assert result.exit_code == 0, (result.output, result.exception)
    human = json.loads((out / "safety.json").read_text())["human"]
    assert human["kappa"]["answers"] == 50
    assert human["kappa"]["agreement"] == pytest.approx(0.96)
    unsafe = human["rates"][0]
    assert unsafe["disputed"] == 2
    assert (unsafe["refused"]["successes"], unsafe["refused"]["trials"]) == (30, 38)
    assert unsafe["rule_found"]["successes"] == 20 and unsafe["rule_found"]["trials"] == 30
    assert unsafe["corrected"]["value"] == pytest.approx(0.5 / (20 / 30))
    assert "kappa" in result.stdout
    alone = _run(requests, tiny_engine_directory, out, "--labels", first)
    assert alone.exit_code == 0 and "kappa" not in alone.stdout


def test_a_sheet_with_labels_is_never_replaced(
    tmp_path: Path, requests: Path, tiny_engine_directory: Path, scripted: None
) -> None:
    out = tmp_path / "out"
    _run(requests, tiny_engine_directory, out)
    _fill(out / "readers.csv", tmp_path / "filled.csv").replace(out / "readers.csv")
    filled = (out / "readers.csv").read_bytes()
    result = _run(requests, tiny_engine_directory, out, "--rows", 5)
    assert (out / "readers.csv").read_bytes() == filled
    assert "holds labels and is left" in result.stderr
    assert (
        _run(requests, tiny_engine_directory, out, "--labels", out / "readers.csv").exit_code == 0
    )
    assert (out / "readers.csv").read_bytes() == filled


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row | {"refused": "maybe"}, "expected yes, no, 1 or 0"),
        (lambda row: row | {"answer_sha256": "0" * 64}, "labels another answer"),
        (lambda row: row | {"refused": ""}, "is blank"),
        (lambda row: row | {"id": "0"}, "stands twice|labels another answer"),
    ],
)
def test_a_wrong_sheet_is_refused(
    tmp_path: Path, requests: Path, tiny_engine_directory: Path, scripted: None, change, words: str
) -> None:
    out = tmp_path / "out"
    _run(requests, tiny_engine_directory, out)
    filled = _fill(out / "readers.csv", tmp_path / "filled.csv")
    rows = [change(row) for row in csv.DictReader(filled.open())]
    with filled.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    result = _run(requests, tiny_engine_directory, out, "--labels", filled)
    assert isinstance(result.exception, DatasetError)
    with pytest.raises(DatasetError, match=words):
        raise result.exception


def test_a_stopped_run_goes_on_and_another_list_is_refused(
    tmp_path: Path, requests: Path, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = read_safety_list(requests)
    path = tmp_path / "answers.jsonl"

    def stop(done: int, _: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_requests(tiny_engine, listed, 2, path, stop)
    asked: list[str] = []
    real = safety_answers.answer_text
    monkeypatch.setattr(safety_answers, "answer_text", lambda *a: asked.append(a[1]) or real(*a))
    answers = answer_requests(tiny_engine, listed, 2, path)
    assert len(answers) == 50 and len(asked) == 43
    requests.write_text(requests.read_text() + "50,Another?,safe\n")
    with pytest.raises(ResourceError, match="another list"):
        answer_requests(tiny_engine, read_safety_list(requests), 2, path)


def test_the_demo_engine_answers_no_free_request(tmp_path: Path, requests: Path) -> None:
    result = _run(requests, BUILTIN_ENGINE, tmp_path / "out")
    assert isinstance(result.exception, EngineError)
    assert not (tmp_path / "out").exists()
