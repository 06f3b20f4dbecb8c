"""Masks of a grammar: what comes out is whole, and nothing else is said."""

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
from support.schemas import schema_errors

from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.grammar import Constraint, Grammars
from edge_medgemma.runtime.generation.outputs import FinishReason
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling, choose_token, log_softmax
from edge_medgemma.runtime.triage.answer_schema import findings_schema
from edge_medgemma.runtime.triage.protocol import load_protocol

SCHEMA = {
    "type": "object",
    "properties": {
        "present": {"enum": ["yes", "no", "uncertain"]},
        "slices": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 24},
            "maxItems": 3,
        },
        "comment": {"type": "string", "maxLength": 6},
    },
    "required": ["present", "slices", "comment"],
    "additionalProperties": False,
}
WARM = Sampling(temperature=1.0, top_k=0, top_p=1.0)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The built-in engine: its vocabulary has no gaps, as Gemma's has none."""
    with Engine.open(BUILTIN_ENGINE, threads=2) as opened:
        yield opened


@pytest.fixture
def prefix(engine: Engine) -> Prefix:
    prefix = engine.new_prefix()
    prefix.extend(Chunk(engine.prompt.text("A scan was read."), 0))
    return prefix


def _drive(engine: Engine, constraint: Constraint, seed: int, limit: int = 2000) -> list[int]:
    """The longest possible quarrel: a model that knows nothing, one random row after the other."""
    generator = np.random.default_rng(seed)
    ids: list[int] = []
    while len(ids) < limit:
        forced = constraint.forced()
        if not forced:
            logits = generator.normal(size=engine.manifest.text.vocabulary).astype(np.float32)
            forced = [choose_token(logits, WARM, generator, constraint.allowed())[0]]
        for token in forced:
            if token in engine.manifest.tokens.stop:
                return ids
            constraint.accept(token)
            ids.append(token)
    raise AssertionError(f"no end after {limit} tokens")


def _generate(prefix: Prefix, constraint: Constraint, sampling: Sampling, limit: int):
    steps, question = [], [300, 301]
    generator = prefix.generate(question, sampling, limit, constraint)
    while True:
        try:
            steps.append(next(generator))
        except StopIteration as stop:
            return steps, stop.value


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_model_wants_the_answer_is_valid(engine: Engine, seed: int) -> None:
    schema = findings_schema(load_protocol("head_ct"), 24) if seed % 8 == 0 else SCHEMA
    ids = _drive(engine, engine.grammars.json_schema(schema), seed)
    assert not schema_errors(json.loads(engine.tokenizer.decode(ids)), schema)
    assert not engine.tokenizer.control_ids.intersection(ids)


@pytest.mark.parametrize("sampling", [Sampling(), *(Sampling(1.0, seed=s) for s in range(6))])
def test_the_engine_says_valid_json(engine: Engine, prefix: Prefix, sampling: Sampling) -> None:
    constraint = engine.grammars.json_schema(SCHEMA)
    steps, ending = _generate(prefix, constraint, sampling, 200)
    assert ending is FinishReason.STOP
    answer = json.loads(engine.tokenizer.decode([s.token_id for s in steps]))
    assert not schema_errors(answer, SCHEMA)


def test_forced_tokens_are_read_and_never_asked_for(
    engine: Engine, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []
    inner = Prefix._read_text

    def counted(self: Prefix, ids):
        read.append(list(ids))
        return inner(self, ids)

    monkeypatch.setattr(Prefix, "_read_text", counted)
    length = prefix.length
    steps, _ = _generate(prefix, engine.grammars.json_schema(SCHEMA), Sampling(), 200)
    forced = [step for step in steps if step.logprob == 0.0]
    assert len(forced) > 20, "the keys of the schema"
    assert len(read) <= len(steps) - len(forced) + 1
    whole = [300, 301, *(step.token_id for step in steps)]
    flat = [token for ids in read for token in ids]
    assert flat == whole[: len(flat)], "every token is read once and in order"
    assert prefix.length == length


def test_a_choice_has_the_renormalised_probabilities(engine: Engine, prefix: Prefix) -> None:
    yes, no = (engine.tokenizer.encode(word)[0] for word in ("yes", "no"))
    row = log_softmax(prefix.score([[300, 301]])[0])[[yes, no]]
    expected = row - np.logaddexp(*row)
    constraint = engine.grammars.regex("yes|no")
    only = np.zeros(engine.manifest.text.vocabulary, np.bool_)
    only[[yes, no]] = True
    constraint.allowed = lambda: only  # the whole words, not their first letters
    steps, ending = _generate(prefix, constraint, Sampling(), 5)
    assert ending is FinishReason.STOP
    (step,) = steps
    difference = abs(step.logprob - expected[[yes, no].index(step.token_id)])
    assert step.token_id in (yes, no)
    assert difference < 1e-4, f"max {difference:.2e} mean {difference:.2e}"


@pytest.mark.parametrize("seed", range(8))
def test_choices_and_expressions_are_kept_to(engine: Engine, seed: int) -> None:
    answers = ["yes", "no", 'not "sure"', "nö"]
    said = _drive(engine, engine.grammars.choice(answers), seed)
    assert engine.tokenizer.decode(said) in answers
    said = _drive(engine, engine.grammars.regex("[a-c]{2,4}-[0-9]"), seed)
    assert re.fullmatch("[a-c]{2,4}-[0-9]", engine.tokenizer.decode(said))


def test_a_thought_is_free_ends_by_itself_or_by_force_and_never_ends_the_turn(
    engine: Engine,
) -> None:
    tokens = engine.manifest.tokens
    constraint = engine.grammars.choice(["yes", "no"], thought_tokens=3)
    start = constraint.allowed()
    assert start[tokens.thought_begin]
    assert not start[tokens.thought_end]
    constraint.accept(tokens.thought_begin)
    word = engine.tokenizer.encode("x")[0]
    inside = constraint.allowed()
    assert inside[word]
    assert inside[tokens.thought_end]
    assert not inside[list(tokens.stop)].any()
    for _ in range(3):
        assert constraint.forced() == ()
        constraint.accept(word)
    assert constraint.forced() == (tokens.thought_end,)
    constraint.accept(tokens.thought_end)
    behind = constraint.allowed()
    assert not behind[word]
    assert not behind[tokens.thought_begin], "one thought is enough"
    answer = engine.tokenizer.encode("yes")
    for token in answer:
        constraint.accept(token)
    assert set(constraint.forced()) <= set(tokens.stop)
    assert constraint.forced()


def test_without_leave_to_think_the_marker_is_no_text(engine: Engine) -> None:
    constraint = engine.grammars.regex(".*")
    allowed = constraint.allowed()
    assert not allowed[engine.manifest.tokens.thought_begin]
    assert allowed[list(engine.manifest.tokens.stop)].any()
    with pytest.raises(ValueError, match="not allowed"):
        engine.grammars.choice(["yes"]).accept(engine.tokenizer.encode("no")[0])


@pytest.mark.parametrize("limit", [1, 5, 12, 30])
def test_spent_tokens_are_told_from_an_end(engine: Engine, prefix: Prefix, limit: int) -> None:
    steps, ending = _generate(prefix, engine.grammars.json_schema(SCHEMA), Sampling(), limit)
    assert len(steps) == limit
    assert ending is FinishReason.LENGTH


def test_an_answer_that_just_fits_is_whole(engine: Engine, prefix: Prefix) -> None:
    schema = engine.grammars.json_schema
    steps, _ = _generate(prefix, schema(SCHEMA), Sampling(), 200)
    assert _generate(prefix, schema(SCHEMA), Sampling(), len(steps))[1] is FinishReason.STOP
    assert _generate(prefix, schema(SCHEMA), Sampling(), len(steps) - 1)[1] is FinishReason.LENGTH


@pytest.mark.parametrize("schema", [{"type": "strin"}, {"$ref": "http://x/y"}, {"not": {}}])
def test_what_cannot_be_enforced_is_refused(engine: Engine, schema: dict) -> None:
    with pytest.raises(ProtocolError, match="cannot be followed"):
        engine.grammars.json_schema(schema)


def test_a_control_token_that_its_file_calls_text_is_still_none(engine: Engine) -> None:
    word = engine.tokenizer.encode("yes")[0]
    control = [*engine.tokenizer.control_ids, word]
    grammars = Grammars(engine.directory / "tokenizer.json", engine.manifest, control)
    assert engine.grammars.regex(".*").allowed()[word]
    assert not grammars.regex(".*").allowed()[word]
