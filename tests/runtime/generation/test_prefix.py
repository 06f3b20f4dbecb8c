"""The prefix: however a prompt is cut, cached, asked or rewound, the logits stay the same."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edge_medgemma.runtime.generation import prefill_chunks as passes_module
from edge_medgemma.runtime.generation import prefix as prefix_module
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.kv_index import PrefixSnapshot
from edge_medgemma.runtime.generation.outputs import Step
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling

TOLERANCE = 2e-4
"""Of logits around 10: float32 sums taken in another order."""

QUESTIONS = ["Is there a haemorrhage?", "Is there a fracture? Answer yes or no.", "Why?"]


def _assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(actual - expected)
    assert difference.max() < TOLERANCE, f"max {difference.max():.2e} mean {difference.mean():.2e}"


def _features(engine: Engine, count: int) -> np.ndarray:
    size = engine.manifest.vision.image_size
    pixels = np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return engine.encode_images(pixels)


def _read(engine: Engine, chunks: Sequence[Chunk], features: np.ndarray) -> Prefix:
    prefix = engine.new_prefix()
    first = 0
    for chunk in chunks:
        prefix.extend(chunk, features[first : first + chunk.images])
        first += chunk.images
    return prefix


def _one_chunk(chunks: Sequence[Chunk]) -> Chunk:
    return Chunk(tuple(i for c in chunks for i in c.ids), sum(c.images for c in chunks))


@pytest.fixture(scope="module")
def scan(tiny_engine: Engine) -> tuple[tuple[Chunk, ...], np.ndarray]:
    """Five slices: several times the window of 24 tokens."""
    return tiny_engine.prompt.prefix("Please review the slices.", 5), _features(tiny_engine, 5)


@pytest.fixture
def questions(tiny_engine: Engine) -> list[tuple[int, ...]]:
    return [tiny_engine.prompt.question(text) for text in QUESTIONS]


def test_chunked_is_unchunked(tiny_engine: Engine, scan, questions) -> None:
    chunks, features = scan
    by_slice = _read(tiny_engine, chunks, features).score(questions)
    pairs = [chunks[0], _one_chunk(chunks[1:3]), _one_chunk(chunks[3:])]
    _assert_close(_read(tiny_engine, pairs, features).score(questions), by_slice)
    _assert_close(_read(tiny_engine, [_one_chunk(chunks)], features).score(questions), by_slice)


def test_all_in_one_pass_is_one_by_one(tiny_engine: Engine, scan, questions) -> None:
    chunks, features = scan
    prefix = _read(tiny_engine, chunks, features)
    together = prefix.score(questions)
    alone = np.concatenate([prefix.score([question]) for question in questions])
    _assert_close(together, alone)
    whole = [
        _read(tiny_engine, chunks, features).extend(Chunk(question, 0)) for question in questions
    ]
    _assert_close(together, np.stack(whole))


def test_questions_leave_the_prefix_as_it_was(
    tiny_engine: Engine, scan, questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_module, "LOCAL_SLACK_SLOTS", 48)  # compaction while generating
    chunks, features = scan
    prefix = _read(tiny_engine, chunks, features)
    length, before = prefix.length, prefix.score(questions)
    first = [step.token_id for step in prefix.generate(questions[0], Sampling(), 120)]
    assert prefix.length == length
    _assert_close(prefix.score(questions), before)
    abandoned = prefix.generate(questions[1], Sampling(), 120)
    for _ in range(90):
        next(abandoned)
    abandoned.close()
    _assert_close(prefix.score(questions), before)
    again = [step.token_id for step in prefix.generate(questions[0], Sampling(), 120)]
    assert again == first


def test_compaction_of_the_window_changes_nothing(
    tiny_engine: Engine, scan, questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks, features = scan
    expected = _read(tiny_engine, chunks, features).score(questions)
    monkeypatch.setattr(prefix_module, "LOCAL_SLACK_SLOTS", 30)
    monkeypatch.setattr(prefix_module, "GLOBAL_GROWTH_SLOTS", 1)
    prefix = _read(tiny_engine, chunks, features)
    _assert_close(prefix.score(questions), expected)


def test_long_passes_are_cut_between_images(
    tiny_engine: Engine, scan, questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks, features = scan
    expected = _read(tiny_engine, chunks, features).score(questions)
    for rows in (7, 16, 40):  # shorter than an image, an image, two images
        for module in (prefix_module, passes_module):
            monkeypatch.setattr(module, "MAX_PREFILL_TOKENS", rows)
        _assert_close(_read(tiny_engine, [_one_chunk(chunks)], features).score(questions), expected)


def test_a_hidden_slice_is_not_seen(tiny_engine: Engine, scan, questions) -> None:
    chunks, features = scan
    prefix = _read(tiny_engine, chunks, features)
    plain = prefix.score(questions[:1])
    hidden = prefix.score([questions[0]] * 2, [(), {4, 5}])
    _assert_close(hidden[:1], plain)
    assert np.abs(hidden[1] - plain[0]).max() > 0.01


def test_generation_is_the_greedy_path_and_honours_every_stop_id(
    tiny_engine: Engine, scan, questions
) -> None:
    chunks, features = scan
    prefix = _read(tiny_engine, chunks, features)
    steps = list(prefix.generate(questions[0], Sampling(), 12))
    logits = prefix.extend(Chunk(questions[0], 0))
    for step in steps:
        assert step.token_id == int(logits.argmax())
        logits = prefix.extend(Chunk((step.token_id,), 0))


def test_two_questions_at_a_time_are_refused(tiny_engine: Engine, scan, questions) -> None:
    chunks, features = scan
    prefix = _read(tiny_engine, chunks, features)
    open_generator = prefix.generate(questions[0], Sampling(), 5)
    next(open_generator)
    with pytest.raises(RuntimeError, match="still open"):
        prefix.score(questions)


def test_features_must_fit_the_chunk(tiny_engine: Engine, scan) -> None:
    chunks, features = scan
    with pytest.raises(ValueError, match="image tokens"):
        tiny_engine.new_prefix().extend(chunks[1], features[:2])


def _copied(snapshot: PrefixSnapshot) -> PrefixSnapshot:
    return replace(
        snapshot,
        global_arrays=[array.copy() for array in snapshot.global_arrays],
        local_arrays=[array.copy() for array in snapshot.local_arrays],
    )


def test_a_restored_prefix_answers_bit_for_bit_as_the_one_it_was_taken_of(
    tiny_engine: Engine, scan, questions
) -> None:
    chunks, features = scan
    prefix = _read(tiny_engine, chunks, features)
    before = prefix.score(questions)
    prefix.compact()
    snapshot = _copied(prefix.snapshot())
    assert len(snapshot.local_rows) < prefix.length == len(snapshot.global_rows)
    other = tiny_engine.new_prefix(prefix.length)
    other.restore(snapshot)
    hidden = [(), {2}, {1, 5}]
    for ask in (
        lambda one: one.score(questions),
        lambda one: one.score(questions, hidden),
        lambda one: list(map(_said, one.generate(questions[0], Sampling(), 40))),
        lambda one: one.extend(chunks[1], features[:1]),
        lambda one: one.score(questions),
    ):
        assert np.array_equal(ask(other), ask(prefix))
    _assert_close(_read(tiny_engine, chunks, features).score(questions), before)


def _said(step: Step) -> tuple[int, float]:
    return step.token_id, step.logprob


@pytest.mark.parametrize("part", ["global_arrays", "local_arrays"])
@pytest.mark.parametrize("fault", ["rows", "heads", "dtype", "fewer", "more"])
def test_a_snapshot_that_does_not_fit_is_refused(tiny_engine: Engine, scan, part, fault) -> None:
    chunks, features = scan
    snapshot = _read(tiny_engine, chunks, features).snapshot()
    arrays = list(getattr(snapshot, part))
    wrong = {
        "rows": [arrays[0][:, :, 1:], *arrays[1:]],
        "heads": [*arrays[:-1], np.repeat(arrays[-1], 2, axis=1)],
        "dtype": [array.astype(np.float16) for array in arrays],
        "fewer": arrays[:-1],
        "more": [*arrays, arrays[0]],
    }
    with pytest.raises(ValueError):
        tiny_engine.new_prefix().restore(replace(snapshot, **{part: wrong[fault]}))
