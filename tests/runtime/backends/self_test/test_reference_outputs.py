"""The self-test's reference: what it takes for equal, and what it refuses."""

import dataclasses

import numpy as np
import pytest

from edge_medgemma.runtime.backends import decoder_inputs as feeds_module
from edge_medgemma.runtime.backends.self_test.reference_outputs import (
    MIN_COSINE,
    REFERENCE_OUTPUTS_NAME,
    check,
    compare,
    dump_reference_outputs,
    load_reference_outputs,
    reference_outputs_of,
)
from edge_medgemma.runtime.errors import EngineError, ProviderError
from edge_medgemma.runtime.generation import self_test
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.sampling import log_softmax
from edge_medgemma.runtime.generation.self_test import (
    compare_with_reference,
    make_reference_outputs,
)
from edge_medgemma.runtime.memory.cache_geometry import LOCAL_SLACK_SLOTS


@pytest.fixture
def reference():
    """Random features and log-probabilities with a clear greedy answer, and their reference file."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(16, 32)).astype(np.float32)
    logits = generator.normal(size=(8, 500)).astype(np.float32)
    tokens = generator.integers(0, 500, 8)
    logits[np.arange(8), tokens] = 6
    logprobs = log_softmax(logits)
    return (
        features,
        logprobs,
        reference_outputs_of(np.zeros((4, 4, 3), np.uint8), features, tokens, logprobs),
    )


def test_the_file_keeps_everything(reference, tmp_path):
    reference = reference[2]
    data = dump_reference_outputs(reference)
    assert data == dump_reference_outputs(reference)
    (tmp_path / REFERENCE_OUTPUTS_NAME).write_bytes(data)
    loaded = load_reference_outputs(tmp_path, {REFERENCE_OUTPUTS_NAME})
    for field in dataclasses.fields(reference):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(reference, field.name))
    assert load_reference_outputs(tmp_path, {"vision.onnx"}) is None, "a file that nobody listed"


@pytest.mark.parametrize("damage", [lambda data: data[:-40], lambda data: b"", lambda data: b"PK"])
def test_a_damaged_file_is_an_engine_error(reference, tmp_path, damage):
    (tmp_path / REFERENCE_OUTPUTS_NAME).write_bytes(damage(dump_reference_outputs(reference[2])))
    with pytest.raises(EngineError, match="reference outputs"):
        load_reference_outputs(tmp_path, {REFERENCE_OUTPUTS_NAME})


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / REFERENCE_OUTPUTS_NAME, image=np.array([{"a": 1}], object))
    with pytest.raises(EngineError, match="reference outputs"):
        load_reference_outputs(tmp_path, {REFERENCE_OUTPUTS_NAME})


def test_rounding_passes(reference):
    features, logprobs, reference = reference
    noise = np.random.default_rng(1).normal(scale=0.02, size=logprobs.shape)
    comparison = compare(
        reference, features.astype(np.float16).astype(np.float32), logprobs + noise
    )
    check(comparison, "tensorrt")
    assert comparison.greedy_equal == comparison.steps == 8


def test_wrong_features_fail(reference):
    features, logprobs, reference = reference
    wrong = features.copy()
    wrong[3] = wrong[4]
    with pytest.raises(ProviderError, match="image cosine"):
        check(compare(reference, wrong, logprobs), "tensorrt")


def test_wrong_logits_fail(reference):
    features, logprobs, reference = reference
    with pytest.raises(ProviderError, match="0 of 8 tokens equal"):
        check(compare(reference, features, np.roll(logprobs, 1, axis=1)), "tensorrt")


@pytest.mark.parametrize("part", ["features", "logprobs"])
def test_a_nan_fails(reference, part):
    features, logprobs, reference = reference
    (features if part == "features" else logprobs)[2, 5] = np.nan
    with pytest.raises(ProviderError):
        check(compare(reference, features, logprobs), "tensorrt")


def test_a_tie_may_change_places(reference):
    features, logprobs, reference = reference
    first, second = reference.top_ids[0, :2]
    tied = logprobs.copy()
    tied[0, second] = tied[0, first] - 0.05
    other = logprobs.copy()
    other[0, second] = other[0, first] + 0.05
    close = reference_outputs_of(reference.image, features, reference.tokens, tied)
    assert compare(close, features, other).greedy_equal == 8
    assert compare(reference, features, other).greedy_equal == 7


def test_an_engine_agrees_with_itself_and_a_wrong_mask_does_not(tiny_engine_directory, monkeypatch):
    with Engine.open(tiny_engine_directory, threads=1) as engine:
        reference = make_reference_outputs(engine)
        right = compare_with_reference(engine, reference)
        check(right, "cpu")
        feeds = feeds_module.cache_feeds

        def blind(dialect, masks, capacity):
            return feeds(dialect, {k: np.zeros_like(m) for k, m in masks.items()}, capacity)

        monkeypatch.setattr(feeds_module, "cache_feeds", blind)
        wrong = compare_with_reference(engine, reference)
    print(right, wrong)
    assert right.smallest_cosine > max(MIN_COSINE, 0.99999)
    with pytest.raises(ProviderError):
        check(wrong, "cpu")


def test_the_prompt_is_longer_than_the_local_caches(tiny_engine):
    """Else neither a window that is ignored on a device nor a compaction gone wrong would show."""
    text = self_test._instruction(tiny_engine)
    read = sum(len(chunk.ids) for chunk in tiny_engine.prompt.prefix(text, 1))
    assert read > tiny_engine.manifest.text.sliding_window + LOCAL_SLACK_SLOTS
