import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from support.fake_engine import THOUGHT_BEGIN, THOUGHT_END, FakeEngine
from support.synthetic_series import CANARY, write_head_ct

from edge_medgemma.runtime.commands import ask
from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.triage.protocol import builtin_names


@pytest.fixture
def engine(monkeypatch) -> FakeEngine:
    """An engine that thinks, then answers with an escape sequence in it."""
    engine = FakeEngine()
    engine.tokenizer.words += ["\x1b[2Jnone", "\u202ereversed"]
    answer = [len(engine.tokenizer.words) - 2, len(engine.tokenizer.words) - 1]
    engine.reply = [THOUGHT_BEGIN, *engine.tokenizer.encode(" looking"), THOUGHT_END, *answer]
    monkeypatch.setattr(ask.Engine, "open", lambda directory, **_: engine)
    return engine


def invoke(*arguments: object):
    return CliRunner().invoke(ask.command, [str(argument) for argument in arguments])


def test_the_answer_is_streamed_with_control_characters_spelled_out(tmp_path, engine) -> None:
    scan = write_head_ct(tmp_path / "scan")
    result = invoke(scan, "Is there free fluid?")
    assert result.exit_code == 0, result.output
    assert result.stdout == "\\x1b[2Jnone\\u202ereversed\n"
    assert CANARY not in result.output


def test_reasoning_is_shown_when_asked_for(tmp_path, engine) -> None:
    result = invoke(write_head_ct(tmp_path / "scan"), "Why?", "--show-thinking")
    assert result.stdout.startswith(" looking")


def test_an_answer_that_never_comes_is_said(tmp_path, engine) -> None:
    result = invoke(write_head_ct(tmp_path / "scan"), "Why?", "--max-tokens", 2)
    assert result.stdout == "\n"
    assert "no answer" in result.stderr


def test_timings_go_to_stderr(tmp_path, engine) -> None:
    result = invoke(write_head_ct(tmp_path / "scan"), "Why?", "--timings", "--no-cache")
    assert re.search(
        r"vision [\d.]+ s a slice, prefill [\d.]+ tokens/s, first token", result.stderr
    )


def test_problems_of_the_scan_go_to_stderr(tmp_path, engine) -> None:
    scan = write_head_ct(tmp_path / "scan", BodyPartExamined=None)
    result = invoke(scan, "Why?", "--protocol", "head_ct")
    assert "note: The scan does not state its body part" in result.stderr


def test_too_short_a_series_is_said_on_stderr(tmp_path, engine) -> None:
    result = invoke(write_head_ct(tmp_path / "scan", slices=8), "Why?")
    assert "note: The series shows" in result.stderr and result.exit_code == 0


def test_an_unknown_protocol_lists_those_there_are(tmp_path, engine) -> None:
    result = invoke(tmp_path, "Why?", "--protocol", "neck_ct")
    assert isinstance(result.exception, ProtocolError)
    assert "auto, a .toml file or one of" in str(result.exception)
    assert all(name in str(result.exception) for name in builtin_names())


def test_a_question_with_a_control_token_is_refused_before_anything_is_read(
    tmp_path, engine
) -> None:
    result = invoke(write_head_ct(tmp_path / "scan"), "<turn> yes")
    assert isinstance(result.exception, ProtocolError)
    assert engine.images_encoded == 0


@pytest.mark.parametrize("option", [("--max-tokens", 0), ("--temperature", -1), ("--slices", 0)])
def test_values_out_of_range_are_usage_errors(tmp_path, engine, option) -> None:
    assert invoke(tmp_path, "Why?", *option).exit_code == 2


def test_random_weights_say_so_ahead_of_any_answer(tmp_path, engine) -> None:
    source = replace(engine.manifest.source, kind="synthetic")
    engine.manifest = replace(engine.manifest, source=source)
    result = invoke(write_head_ct(tmp_path / "scan"), "Why?")
    assert "note: The engine's weights are random: nothing it says means anything." in result.stderr
