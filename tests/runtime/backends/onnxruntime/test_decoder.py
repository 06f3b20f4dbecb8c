"""The fast forms of an answer, int8 caches and drafted head, against the exact ones."""

import numpy as np
import pytest

from edge_medgemma.runtime.backends.onnxruntime import decoder as ort_decoder
from edge_medgemma.runtime.backends.onnxruntime.decoder import quantise
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.generation import prefix as prefix_module
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.sampling import Sampling, log_softmax

TOKENS = 150
"""Two windows of the demonstration engine: the answer's own caches are compacted on the way."""

MOST_KL = 5e-3
"""Nats, of one token; 9e-4 was measured."""


@pytest.fixture(scope="module")
def prefix() -> Prefix:
    """Twelve noisy slices read by the demonstration engine, whose weights are int4."""
    with Engine.open(BUILTIN_ENGINE, threads=2) as engine:
        size = engine.manifest.vision.image_size
        pixels = np.random.default_rng(1).integers(0, 256, (12, size, size, 3), dtype=np.uint8)
        features = engine.encode_images(pixels)
        prefix = engine.new_prefix()
        first = 0
        for chunk in engine.prompt.prefix("Please review the slices.", len(pixels)):
            prefix.extend(chunk, features[first : first + chunk.images])
            first += chunk.images
        return prefix


def _forced(prefix: Prefix, monkeypatch: pytest.MonkeyPatch, fast: set[str]) -> np.ndarray:
    """Logits [TOKENS, V] of an answer whose tokens are prescribed."""
    seen: list[np.ndarray] = []

    def prescribed(logits, *_):
        seen.append(logits.copy())
        return 5 + len(seen), 0.0

    run = ort_decoder.OrtDecoder.run

    def with_head(self, *arguments, is_decode=False):
        return run(self, *arguments, is_decode=is_decode and "head" in fast)

    monkeypatch.setattr(prefix_module, "choose_token", prescribed)
    monkeypatch.setattr(ort_decoder, "INT8_MINIMUM_ROWS", 1 if "caches" in fast else 10**9)
    monkeypatch.setattr(ort_decoder.OrtDecoder, "run", with_head)
    list(prefix.generate([7, 8, 9], Sampling(), TOKENS))
    monkeypatch.undo()
    return np.array(seen)


def _assert_near(actual: np.ndarray, expected: np.ndarray) -> None:
    expected, actual = log_softmax(expected), log_softmax(actual)
    kl = (np.exp(expected) * (expected - actual)).sum(axis=-1)
    assert 0 < kl.max() < MOST_KL, f"KL max {kl.max():.2e} mean {kl.mean():.2e} nats"


def test_int8_caches_answer_as_float_caches_do(prefix, monkeypatch) -> None:
    expected = _forced(prefix, monkeypatch, set())
    actual = _forced(prefix, monkeypatch, {"caches"})
    np.testing.assert_array_equal(actual[0], expected[0])  # read before the answer begins
    _assert_near(actual[1:], expected[1:])
    np.testing.assert_array_equal(_forced(prefix, monkeypatch, set()), expected)


def test_the_best_rows_of_the_drafted_head_are_the_heads(prefix, monkeypatch) -> None:
    expected = _forced(prefix, monkeypatch, set())[1:]
    actual = _forced(prefix, monkeypatch, {"head"})[1:]
    _assert_near(actual, expected)
    best = np.argsort(expected, axis=-1)[:, -20:]
    difference = np.abs(
        np.take_along_axis(actual, best, -1) - np.take_along_axis(expected, best, -1)
    )
    everywhere = np.abs(actual - expected)
    # The head itself rounds its input to 8 bits; the candidates' rows do not.
    assert difference.max() < 0.25 * everywhere.max(), f"{difference.max()} {everywhere.max()}"


def test_quantised_values_are_within_half_a_step() -> None:
    generator = np.random.default_rng(0)
    values = generator.standard_normal((1, 2, 1100, 8)).astype(np.float32)
    values *= generator.uniform(0.01, 100, (1, 2, 1, 8))
    values[:, 0, :, 3] = 0
    integers = np.full((1, 2, 1200, 8), 99, np.int8)
    step = quantise(values, integers).reshape(1, 2, 1, 8)
    error = np.abs(integers[:, :, :1100] * step - values) / step
    assert error.max() <= 0.5 + 1e-4, f"max {error.max():.3f} mean {error.mean():.3f} steps"
    assert (integers[:, :, 1100:] == 99).all()


def test_memory_is_given_back_as_the_context_grows() -> None:
    with Engine.open(BUILTIN_ENGINE, threads=1) as engine:
        decoder = engine.decoder_model()
        assert isinstance(decoder, ort_decoder.OrtDecoder)
        rows = (100, 4095, 4096, 8191, 8192, 300, 4395, 4396)  # at 300 another context begins
        gives = [decoder._is_time_to_shrink(count) for count in rows]
    assert gives == [False, False, True, False, True, False, False, True]


def test_giving_memory_back_changes_no_logit(
    prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = prefix.score([[5, 6, 7]])
    monkeypatch.setattr(ort_decoder, "SHRINK_ROWS", 0)  # after every pass
    assert (prefix.score([[5, 6, 7]]) == kept).all()
    assert (prefix.score([[5, 6, 7]]) == kept).all()
