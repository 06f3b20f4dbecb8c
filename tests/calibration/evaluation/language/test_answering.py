"""Free answers continue the very prompt: of a picture, or of text alone."""

import numpy as np

from edge_medgemma.calibration.evaluation.language.answering import (
    GREEDY,
    answer_about,
    answer_text,
    picture_prefix,
)
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prompt import Chunk


def test_a_request_without_a_picture_is_read_like_any_prefix(tiny_engine: Engine) -> None:
    ids = tiny_engine.prompt.text("How are you?")
    prefix = tiny_engine.new_prefix()
    prefix.extend(Chunk(ids[:-1], 0), wants_logits=False)
    tokens = [step.token_id for step in prefix.generate(ids[-1:], GREEDY, 12)]
    found = answer_text(tiny_engine, "How are you?", 12)
    assert found.text == tiny_engine.tokenizer.decode(tokens).strip()
    assert found.tokens == len(tokens) > 0


def test_questions_about_a_picture_leave_it_as_it_was(tiny_engine: Engine) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    prefix = picture_prefix(tiny_engine, picture)
    first = answer_about(tiny_engine, prefix, "Is it normal?", 8)
    answer_about(tiny_engine, prefix, "What is shown here?", 8)
    assert answer_about(tiny_engine, prefix, "Is it normal?", 8) == first
    dark = picture_prefix(tiny_engine, np.zeros_like(picture))
    question = tiny_engine.prompt.question("Is it normal?")
    assert not np.array_equal(prefix.score([question]), dark.score([question]))
