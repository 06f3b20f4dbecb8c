"""One prompt through an engine and through transformers, each preparing it by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.export.verification.cases import Case
from edge_medgemma.export.verification.reference import Reference, ReferenceInputs
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.images import to_pixel_values
from edge_medgemma.runtime.generation.prefix import Prefix
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.sampling import Sampling, log_softmax
from edge_medgemma.runtime.triage.prefill import prefill_slices


@dataclass(frozen=True, slots=True)
class IdDifference:
    """The first position at which two prompts have other token ids; None past the end of one."""

    position: int
    engine: int | None
    reference: int | None
    engine_token: str
    reference_token: str


@dataclass(frozen=True, slots=True)
class LogitComparison:
    """Logits at the end of the prompt and after each token of the reference's greedy continuation.

    Both are fed that continuation.
    """

    max_logit_difference: float
    mean_logit_difference: float
    logit_range: float
    """Largest minus smallest logit of the reference."""
    positions: int
    kl_nats: float
    """Mean KL(reference || engine) over the positions."""
    top1_agreement: float
    """Share of the positions with the same most likely token."""
    lead_nats: tuple[float, ...]
    """By how much the reference prefers its own token, at each of the others."""


@dataclass(frozen=True, slots=True)
class GreedyComparison:
    """Two free-running greedy continuations."""

    equal: int
    """Tokens until they part."""
    tokens: int
    """Tokens of the reference up to its end, which counts as one."""
    lead_nats: float
    """By how much the reference prefers its own token where they part; 0 where they do not."""


@dataclass(frozen=True, slots=True)
class CaseComparison:
    """One prompt through both. A stage is None where it was not compared."""

    prompt: str
    tokens: int
    """Of the engine's prompt"""
    id_difference: IdDifference | None
    pixel_difference: float | None
    """Largest difference of a pixel value; infinite for other shapes, None without pictures."""
    image_cosine: float | None
    """Smallest cosine of an image token's features; None without pictures."""
    logits: LogitComparison | None
    greedy: GreedyComparison | None


def compare_case(
    engine: Engine, reference: Reference, case: Case, greedy_tokens: int
) -> CaseComparison:
    """Compare ids, then pixel values, image features, logits and greedy tokens.

    Behind different ids nothing is compared, nor behind pixel values of another shape.
    """
    expected = reference.inputs(case)
    ids, question = _engine_ids(engine, case)
    difference = _first_difference(ids, expected.ids, reference)
    if difference is not None:
        return CaseComparison(case.name, len(ids), difference, None, None, None, None)
    pixel_difference = image_cosine = None
    features = np.zeros((0, 0, 0), np.float32)
    if len(case.pictures):
        pixel_values = to_pixel_values(case.pictures, engine.manifest.vision)
        if pixel_values.shape != expected.pixel_values.shape:
            return CaseComparison(case.name, len(ids), None, float("inf"), None, None, None)
        pixel_difference = float(np.abs(pixel_values - expected.pixel_values).max())
        features = engine.encode_images(case.pictures)
        image_cosine = _smallest_cosine(features, reference.image_features(expected.pixel_values))
    logits, greedy = _compare_answers(
        engine, reference, _Prompt(case, expected, question, features), greedy_tokens
    )
    return CaseComparison(case.name, len(ids), None, pixel_difference, image_cosine, logits, greedy)


@dataclass(frozen=True, slots=True)
class _Prompt:
    case: Case
    expected: ReferenceInputs
    question: tuple[int, ...]
    features: NDArray[np.float32]
    """[images, tokens_per_image, hidden] of the engine"""


def _engine_ids(engine: Engine, case: Case) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """All ids of the engine's prompt, and those of its question, the last of them."""
    if not len(case.pictures):
        ids = engine.prompt.text(case.question)
        return ids, ids
    question = engine.prompt.question(case.question)
    chunks = engine.prompt.prefix(case.instruction, len(case.pictures))
    return (*(i for chunk in chunks for i in chunk.ids), *question), question


def _first_difference(
    ids: Sequence[int], expected: Sequence[int], reference: Reference
) -> IdDifference | None:
    def spelling(token_id: int | None) -> str:
        return "nothing" if token_id is None else reference.spelling(token_id)

    for position in range(max(len(ids), len(expected))):
        own = ids[position] if position < len(ids) else None
        other = expected[position] if position < len(expected) else None
        if own != other:
            return IdDifference(position, own, other, spelling(own), spelling(other))
    return None


def _compare_answers(
    engine: Engine, reference: Reference, prompt: _Prompt, tokens: int
) -> tuple[LogitComparison, GreedyComparison]:
    expected_ids, expected = reference.greedy(prompt.expected, tokens)
    prefix = _prefilled(engine, prompt)
    own_ids = [step.token_id for step in prefix.generate(prompt.question, Sampling(), tokens)]
    rows = [prefix.extend(Chunk(prompt.question, 0))]
    rows += [prefix.extend(Chunk((token,), 0)) for token in expected_ids[:-1]]
    actual = np.stack(rows)
    log_p, log_q = log_softmax(expected), log_softmax(actual)
    difference = np.abs(actual - expected)
    chosen = np.take_along_axis(log_p, actual.argmax(-1)[:, None], axis=-1)[:, 0]
    is_other = actual.argmax(-1) != expected.argmax(-1)
    stop = engine.manifest.tokens.stop
    equal, length = common_greedy(own_ids, expected_ids, stop)
    lead = 0.0
    if equal < length:
        own = own_ids[equal] if equal < len(own_ids) else max(stop, key=lambda i: log_p[equal, i])
        lead = float(log_p[equal].max() - log_p[equal, own])
    return (
        LogitComparison(
            max_logit_difference=float(difference.max()),
            mean_logit_difference=float(difference.mean()),
            logit_range=float(expected.max() - expected.min()),
            kl_nats=float((np.exp(log_p) * (log_p - log_q)).sum(-1).mean()),
            positions=len(actual),
            top1_agreement=float(1 - is_other.mean()),
            lead_nats=tuple((log_p.max(-1) - chosen)[is_other].tolist()),
        ),
        GreedyComparison(equal, length, lead),
    )


def _prefilled(engine: Engine, prompt: _Prompt) -> Prefix:
    """All ahead of the question, read as `triage` and `ask` read a scan."""
    if not len(prompt.case.pictures):
        return engine.new_prefix(len(prompt.question))
    return prefill_slices(engine, prompt.case.instruction, len(prompt.features), prompt.features)


def common_greedy(
    own: Sequence[int], reference: Sequence[int], stop: Sequence[int]
) -> tuple[int, int]:
    """Tokens that two greedy continuations share, and how many the reference has.

    Args:
        own: of the engine, which ends ahead of a stop id
        reference: of transformers, which here goes on behind it
        stop: ids that end an answer; ending counts as one token
    """
    end = next((i for i, token in enumerate(reference) if token in stop), None)
    length = len(reference) if end is None else end + 1
    expected = [*reference[:length]] if end is None else [*reference[:end], stop[0]]
    ended = [*own, stop[0]]
    equal = next((i for i in range(length) if ended[i : i + 1] != expected[i : i + 1]), length)
    return equal, length


def _smallest_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / lengths).min())
