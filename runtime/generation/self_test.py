"""An engine on its reference image: makes the reference outputs, or compares a device with them."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.self_test.reference_outputs import (
    ReferenceComparison,
    ReferenceOutputs,
    check,
    compare,
    load_reference_outputs,
    reference_outputs_of,
)
from edge_medgemma.runtime.errors import ProviderError
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk, PromptBuilder
from edge_medgemma.runtime.generation.sampling import log_softmax
from edge_medgemma.runtime.generation.tokenizer import Tokenizer
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.memory.cache_geometry import LOCAL_SLACK_SLOTS
from edge_medgemma.runtime.store.number_cache import CachedNumbers
from edge_medgemma.runtime.store.places import Place

INSTRUCTION = "You are a radiologist. Please review the slice provided below carefully."
QUESTION = "Based on the slice provided above, is there an abnormality? Answer yes or no."

STEPS = 8
"""Tokens of the answer."""

IMAGE_SIDE = 64
"""The image is resized to the tower's size as any other slice."""


class EngineUnderTest(Protocol):
    """The part of `Engine` that a self-test calls; an engine tests itself before it trusts a device."""

    directory: Path
    manifest: Manifest
    prompt: PromptBuilder
    tokenizer: Tokenizer

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[N, rows, columns, 3] to [N, tokens_per_image, hidden]."""
        ...

    def new_prefix(self, expected_tokens: int = 0) -> Prefix:
        """An empty prefix."""
        ...


def make_reference_outputs(engine: EngineUnderTest) -> ReferenceOutputs:
    """The reference from an engine on the CPU."""
    image = reference_image()
    features = engine.encode_images(image[None])
    rounded = features.astype(np.float16).astype(np.float32)
    logprobs, tokens = _answer(engine, rounded, None)
    return reference_outputs_of(image, features[0], tokens, logprobs)


def compare_with_reference(
    engine: EngineUnderTest, reference: ReferenceOutputs
) -> ReferenceComparison:
    """An engine on its device against the reference."""
    features = engine.encode_images(reference.image[None])[0]
    stored = reference.features.astype(np.float32)[None]
    logprobs, _ = _answer(engine, stored, reference.tokens)
    return compare(reference, features, logprobs)


def require_agreement(engine: EngineUnderTest, name: str, identity: str) -> None:
    """Compare an engine on its device with the CPU, once for each identity.

    Args:
        engine: on the device
        name: of the device, for the message
        identity: of what runs both parts; the verdict is kept in the user's cache folder

    Raises:
        ProviderError: it is too far off, or the engine has no reference outputs to tell by.
        EngineError: the reference outputs are damaged.
    """
    reference = load_reference_outputs(engine.directory, engine.manifest.files)
    if reference is None:
        raise ProviderError(
            f"the engine has no reference outputs, by which {name} would be tested; export it again "
            "without --no-reference-outputs, or use --provider cpu"
        )
    cache = CachedNumbers(Place.SELF_TESTS.folder, engine.manifest.sha256, identity)
    cached = cache.read([field.name for field in fields(ReferenceComparison)])
    if cached is None:
        comparison = compare_with_reference(engine, reference)
        cache.write(asdict(comparison))
    else:
        cosine, kl_nats, greedy_equal, steps = cached.values()
        comparison = ReferenceComparison(cosine, kl_nats, int(greedy_equal), int(steps))
    check(comparison, name)


def reference_image() -> NDArray[np.uint8]:
    """[IMAGE_SIDE, IMAGE_SIDE, 3]: an ellipse in a ring, a bright wedge, three windows' levels.

    Integers only, so that it is the same everywhere.
    """
    row, column = np.mgrid[:IMAGE_SIDE, :IMAGE_SIDE] - IMAGE_SIDE // 2
    radius = 4 * row**2 + 5 * column**2
    grey = np.where(radius < 3600, 90 + row + column, 0)
    grey = np.where((radius >= 3600) & (radius < 4400), 250, grey)
    grey = np.where((radius < 900) & (row > column), 170, grey)
    channels = np.stack([grey, (grey * 3) // 4, 255 - grey], axis=-1)
    image: NDArray[np.uint8] = np.clip(channels, 0, 255).astype(np.uint8)
    return image


def _answer(
    engine: EngineUnderTest, features: NDArray[np.float32], tokens: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Log-probabilities [STEPS, vocabulary] and the tokens they were continued by.

    `tokens` None takes the most likely one each time.
    """
    chunks = engine.prompt.prefix(_instruction(engine), 1)
    question = Chunk(engine.prompt.question(QUESTION), 0)
    steps = STEPS if tokens is None else len(tokens)
    prefix = engine.new_prefix(sum(len(one.ids) for one in (*chunks, question)) + steps)
    for chunk in chunks:
        prefix.extend(chunk, features if chunk.images else None, wants_logits=False)
    logits, chosen = [prefix.extend(question)], []
    for step in range(steps):
        token = int(logits[-1].argmax()) if tokens is None else int(tokens[step])
        chosen.append(token)
        if step + 1 < steps:
            logits.append(prefix.extend(Chunk((token,), 0)))
    return log_softmax(np.stack(logits)), np.array(chosen, np.int64)


def _instruction(engine: EngineUnderTest) -> str:
    """INSTRUCTION so often that the local caches are compacted and the answer sees a whole window."""
    rows = engine.manifest.text.sliding_window + LOCAL_SLACK_SLOTS
    return " ".join([INSTRUCTION] * (rows // len(engine.tokenizer.encode(INSTRUCTION)) + 1))
