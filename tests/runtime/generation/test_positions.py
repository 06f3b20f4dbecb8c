"""No token stands beyond the positions that an engine was made for."""

from dataclasses import replace

import pytest

from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.embedding import Embedding
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.outputs import FinishReason
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling

POSITIONS = 40

ENDLESS = Sampling(ignore_stop=True)


@pytest.fixture
def prefix(tiny_engine: Engine) -> Prefix:
    """30 tokens of an engine for 40."""
    manifest = tiny_engine.manifest
    short = replace(manifest, text=replace(manifest.text, max_positions=POSITIONS))
    embedding = Embedding(tiny_engine.directory, manifest)
    prefix = Prefix(tiny_engine.decoder_model(), embedding, short)
    prefix.extend(Chunk((5,) * 30, 0))
    return prefix


def test_a_prompt_that_is_too_long_is_refused_and_one_that_fits_is_read(prefix: Prefix) -> None:
    with pytest.raises(
        EngineError, match=r"are 41 tokens, the engine reads 40; use fewer --slices"
    ):
        prefix.extend(Chunk((6,) * 11, 0))
    with pytest.raises(EngineError, match="are 41 tokens"):
        prefix.score([(6,), (6,) * 11])
    with pytest.raises(EngineError, match="are 41 tokens"):
        next(prefix.generate((6,) * 11, ENDLESS, 1))
    assert prefix.score([(6,), (6,) * 10]).shape[0] == 2
    prefix.extend(Chunk((6,) * 10, 0))
    assert prefix.length == POSITIONS


@pytest.mark.parametrize(
    ("max_tokens", "count", "reason"),
    [(8, 8, FinishReason.LENGTH), (9, 8, FinishReason.CONTEXT), (2000, 8, FinishReason.CONTEXT)],
)
def test_an_answer_ends_at_the_last_position_and_says_so(
    prefix: Prefix, max_tokens: int, count: int, reason: FinishReason
) -> None:
    steps = prefix.generate((6, 7), ENDLESS, max_tokens)
    tokens = []
    with pytest.raises(StopIteration) as stop:
        while True:
            tokens.append(next(steps))
    assert (len(tokens), stop.value.value) == (count, reason)
