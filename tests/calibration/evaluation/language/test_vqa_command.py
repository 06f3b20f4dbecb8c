"""`evaluate vqa` from the files of a dataset to vqa.json, on the tiny engine of random weights."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.schemas import assert_valid
from support.vqa_datasets import write_slake, write_vqa_rad

from edge_medgemma.calibration.evaluation.language.prompts import PROMPT_FORMS
from edge_medgemma.calibration.evaluation.language.vqa_answers import VqaAnswer, answer_questions
from edge_medgemma.calibration.evaluation.language.vqa_layouts import read_slake
from edge_medgemma.calibration.evaluation.language.vqa_results import vqa_document, write_vqa_csv
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import EngineError, ResourceError
from edge_medgemma.runtime.generation.engine import Engine

SHORT = PROMPT_FORMS["short"]


def _run(*arguments: object):
    return CliRunner().invoke(cli, ["evaluate", "vqa", *map(str, arguments)])


@pytest.mark.command("evaluate vqa")
def test_answers_scores_and_pairs_are_written(tmp_path: Path, tiny_engine_directory: Path) -> None:
    out = tmp_path / "out"
    result = _run(
        write_slake(tmp_path / "slake"), "--layout", "slake", "--engine", tiny_engine_directory,
        "--compare", tiny_engine_directory, "--out", out, "--max-tokens", 4, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    assert_valid(out / "vqa.json", "vqa")
    document = json.loads(result.stdout)
    assert document == json.loads((out / "vqa.json").read_text())
    assert document["first"]["rows"][0]["closed"]["trials"] == 2
    assert {row["by"] for row in document["first"]["rows"]} == {"all", "modality"}
    assert all(row["prompt_sha256"] == SHORT.sha256 for row in document["first"]["rows"])
    assert document["comparison"]["closed"]["p_value"] == 1
    assert document["comparison"]["flips"] == []
    rows = list(csv.DictReader((out / "vqa.csv").open()))
    assert len(rows) == 8
    assert {row["prompt_sha256"] for row in rows} == {SHORT.sha256}
    assert all(len(row["engine_sha256"]) == 64 for row in rows)
    assert "2 of 2 closed questions were answered neither yes nor no" in result.stderr


def test_a_table_is_printed_with_n_in_every_figure(
    tmp_path: Path, tiny_engine_directory: Path
) -> None:
    result = _run(
        write_vqa_rad(tmp_path / "rad"), "--layout", "vqa-rad", "--engine", tiny_engine_directory,
        "--out", tmp_path / "out", "--max-tokens", 3,
    )  # fmt: skip
    assert result.exit_code == 0, (result.output, result.exception)
    assert "organ: head" in result.stdout and "of 2 (" in result.stdout
    assert SHORT.sha256[:12] in result.stdout


def test_a_run_that_was_stopped_goes_on_and_writes_the_same(
    tmp_path: Path, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = read_slake(write_slake(tmp_path / "slake"), "test")
    whole = answer_questions(tiny_engine, dataset, SHORT, 4, tmp_path / "whole.jsonl")

    def stop(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    path = tmp_path / "stopped.jsonl"
    with pytest.raises(KeyboardInterrupt):
        answer_questions(tiny_engine, dataset, SHORT, 4, path, stop)
    path.write_bytes(path.read_bytes() + b'{"key":"torn","rep')
    calls = []
    encode = tiny_engine.encode_images
    monkeypatch.setattr(
        tiny_engine, "encode_images", lambda pixels: calls.append(len(pixels)) or encode(pixels)
    )
    resumed = answer_questions(tiny_engine, dataset, SHORT, 4, path)
    assert resumed == whole
    assert calls == [1]
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_answers_of_another_engine_or_prompt_are_not_gone_on_with(
    tmp_path: Path, tiny_engine: Engine
) -> None:
    dataset = read_slake(write_slake(tmp_path / "slake"), "test")
    path = tmp_path / "answers.jsonl"
    answer_questions(tiny_engine, dataset, SHORT, 2, path)
    with pytest.raises(ResourceError, match="another prompt; choose another --out"):
        answer_questions(tiny_engine, dataset, PROMPT_FORMS["question"], 2, path)
    with pytest.raises(ResourceError, match="another longest answer"):
        answer_questions(tiny_engine, dataset, SHORT, 3, path)


def test_right_answers_count_by_kind_and_flips_are_listed(
    tmp_path: Path, tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies put in the place of the engine's: two right ones, a sentence, and a wrong one."""
    dataset = read_slake(write_slake(tmp_path / "slake"), "test")
    replies = {"0": "Yes.", "1": "lung", "3": "No, it is not", "4": "left lung"}
    runs = []
    for change in ({}, {"0": "no", "3": "no"}):
        path = tmp_path / f"{len(runs)}.jsonl"
        said = replies | change
        rows = iter([VqaAnswer(key, text, 2, "stop") for key, text in said.items()])
        monkeypatch.setattr(
            "edge_medgemma.calibration.evaluation.language.vqa_answers._answers",
            lambda *_, rows=rows: rows,
        )
        answers = answer_questions(tiny_engine, dataset, SHORT, 4, path)
        runs.append((tiny_engine.manifest, answers))
    document = vqa_document(dataset, "en", SHORT, 4, runs)
    everything = document.first.rows[0]
    assert (everything.closed.successes, everything.closed.trials) == (1, 2)
    assert (everything.open_exact.successes, everything.open_exact.trials) == (1, 2)
    assert everything.open_token_f1.value == pytest.approx((1 + 0.8) / 2)
    assert (everything.open_token_f1.items, everything.open_token_f1.groups) == (2, 2)
    assert document.first.not_yes_or_no == 1
    assert document.comparison is not None
    assert [(flip.key, flip.is_right_first) for flip in document.comparison.flips] == [
        ("0", True),
        ("3", False),
    ]
    assert document.comparison.changed_answers == 2
    assert document.comparison.closed.first_only == document.comparison.closed.second_only == 1
    write_vqa_csv(tmp_path / "vqa.csv", dataset, SHORT, runs)
    assert len((tmp_path / "vqa.csv").read_text().splitlines()) == 9


def test_an_engine_of_a_few_findings_is_not_asked_free_questions(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = _run(
        write_slake(tmp_path / "slake"),
        "--layout",
        "slake",
        "--engine",
        BUILTIN_ENGINE,
        "--out",
        out,
    )
    assert isinstance(result.exception, EngineError)
    assert "answers no other question" in str(result.exception)
    assert not out.exists()


def test_a_question_that_may_not_be_asked_counts_as_wrong(
    tmp_path: Path, tiny_engine: Engine
) -> None:
    folder = write_slake(tmp_path / "slake")
    text = (folder / "test.json").read_text().replace("Is this a CT?", r"\udcff")
    (folder / "test.json").write_text(text)
    answers = answer_questions(
        tiny_engine, read_slake(folder, "test"), SHORT, 2, tmp_path / "answers.jsonl"
    )
    assert [one.ending for one in answers].count("not_asked") == 1
    (refused,) = (one for one in answers if one.ending == "not_asked")
    assert not refused.is_exact and refused.token_f1 == 0
