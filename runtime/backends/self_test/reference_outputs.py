"""Outputs of the CPU for one fixed image, with which a device is compared before it is trusted.

The file holds the CPU's image features, its greedy answer and its most likely tokens at each step.
A device encodes the image, prefills the prompt with the features of the file, is given the tokens
of the file one by one, and is compared: each part by itself.
"""

import io
import zipfile
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import EngineError, ProviderError

REFERENCE_OUTPUTS_NAME = "self_test.npz"

TOP_TOKENS = 64
"""Tokens of each step whose probability is kept; the others are compared as one."""

MIN_COSINE = 0.99
"""Least cosine of an image token. 16-bit towers and int8 ones stay above 0.999; a wrong layer falls below 0.9."""

MAX_KL_NATS = 0.02
"""Mean over the steps. Reading images causally costs Gemma 0.03 to 0.09
(https://github.com/vllm-project/vllm/issues/40106)."""

TIE_NATS = 0.1
"""A greedy token that leads by less may change places with the next."""


@dataclass(frozen=True, slots=True)
class ReferenceOutputs:
    """The reference: one image, one question."""

    image: NDArray[np.uint8]
    """[rows, columns, 3]"""
    features: NDArray[np.float16]
    """[tokens_per_image, hidden]"""
    tokens: NDArray[np.int64]
    """[steps], the greedy answer, past its end where it has one"""
    top_ids: NDArray[np.int64]
    """[steps, TOP_TOKENS], most likely first"""
    top_logprobs: NDArray[np.float64]
    """[steps, TOP_TOKENS], natural logarithms"""


@dataclass(frozen=True, slots=True)
class ReferenceComparison:
    """How far a device is from the reference; NaN where it gave no number."""

    smallest_cosine: float
    """Least cosine of an image token."""
    kl_nats: float
    """Mean KL(reference || device) over the steps"""
    greedy_equal: int
    """Steps with the reference's token, or a tie with it"""
    steps: int


def reference_outputs_of(
    image: NDArray[np.uint8],
    features: NDArray[np.float32],
    tokens: NDArray[np.int64],
    logprobs: NDArray[np.float64],
) -> ReferenceOutputs:
    """The reference from log-probabilities [steps, vocabulary] of the CPU."""
    top_ids = np.argsort(-logprobs, axis=-1, kind="stable")[:, :TOP_TOKENS]
    top = np.take_along_axis(logprobs, top_ids, axis=-1)
    return ReferenceOutputs(
        image, features.astype(np.float16), tokens, top_ids.astype(np.int64), top.astype("<f4")
    )


def dump_reference_outputs(reference: ReferenceOutputs) -> bytes:
    """The file's contents; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(
        buffer, **{field.name: getattr(reference, field.name) for field in fields(ReferenceOutputs)}
    )
    return buffer.getvalue()


def load_reference_outputs(directory: Path, files: Collection[str]) -> ReferenceOutputs | None:
    """The reference of an engine directory; None where it was exported without.

    Args:
        directory: of the engine
        files: of its manifest: a file that is not among them is not the engine's and not read

    Raises:
        EngineError: the file is not one of `dump_reference_outputs`.
    """
    path = directory / REFERENCE_OUTPUTS_NAME
    if REFERENCE_OUTPUTS_NAME not in files:
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            reference = ReferenceOutputs(
                **{field.name: arrays[field.name] for field in fields(ReferenceOutputs)}
            )
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise EngineError(
            f"'{path}' holds no reference outputs ({error}); export the engine again"
        ) from None
    shape = (len(reference.tokens), reference.top_ids.shape[-1])
    if reference.top_ids.shape != shape or reference.top_logprobs.shape != shape:
        raise EngineError(f"'{path}' is inconsistent; export the engine again")
    return reference


def compare(
    reference: ReferenceOutputs, features: NDArray[np.float32], logprobs: NDArray[np.float64]
) -> ReferenceComparison:
    """A device against the reference.

    Args:
        reference: the reference
        features: [tokens_per_image, hidden] of the device for the reference image
        logprobs: [steps, vocabulary] of the device, fed the reference's features and tokens
    """
    expected = reference.features.astype(np.float32)
    lengths = np.linalg.norm(expected, axis=-1) * np.linalg.norm(features, axis=-1)
    cosine = (expected * features).sum(axis=-1) / lengths
    own = np.take_along_axis(logprobs, reference.top_ids, axis=-1)
    p, q = (_with_rest(top) for top in (reference.top_logprobs, own))
    kl = (p * (np.log(p) - np.log(q))).sum(axis=-1)
    return ReferenceComparison(
        smallest_cosine=float(cosine.min()),
        kl_nats=float(kl.mean()),
        greedy_equal=int(_agrees(reference, logprobs).sum()),
        steps=len(reference.tokens),
    )


def check(comparison: ReferenceComparison, provider: str) -> None:
    """Refuse a device that is too far off; a NaN counts as too far.

    Raises:
        ProviderError: with the numbers and their limits.
    """
    close = comparison.smallest_cosine >= MIN_COSINE and comparison.kl_nats <= MAX_KL_NATS
    if close and comparison.greedy_equal == comparison.steps:
        return
    raise ProviderError(
        f"{provider} fails its self-test: image cosine {comparison.smallest_cosine:.4f} (at least "
        f"{MIN_COSINE}), KL {comparison.kl_nats:.2g} nats (at most {MAX_KL_NATS}), "
        f"{comparison.greedy_equal} of {comparison.steps} tokens equal; use --provider cpu"
    )


def _with_rest(logprobs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of the kept tokens and, last, of all others together; none is zero."""
    kept = np.exp(logprobs.astype(np.float64))
    rest = 1 - kept.sum(axis=-1, keepdims=True)
    joined: NDArray[np.float64] = np.concatenate([kept, rest], axis=-1)
    return np.maximum(joined, 1e-12)  # NaN stays NaN


def _agrees(reference: ReferenceOutputs, logprobs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Steps whose most likely token is the reference's or within TIE_NATS of it there."""
    chosen = logprobs.argmax(axis=-1)
    lead = reference.top_logprobs[:, :1] - reference.top_logprobs
    is_tied = (reference.top_ids == chosen[:, None]) & (lead < TIE_NATS)
    agrees: NDArray[np.bool_] = is_tied.any(axis=-1) & np.isfinite(logprobs).all(axis=-1)
    return agrees
