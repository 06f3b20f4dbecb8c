"""Limits of an engine's differences by its precision, and the first stage that passes one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge_medgemma.export.verification.comparison import CaseComparison
from edge_medgemma.runtime.errors import ParityError
from edge_medgemma.runtime.manifest import Precision

COARSENESS = ("fp32", "fp16", "bf16", "int8", "int4")
"""Kinds of numbers, the most exact first"""

MAX_PIXEL_DIFFERENCE = 1e-5
"""Pixel values lie in -1 .. 1 and are float32 whatever the precision; one grey level is 8e-3."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What an engine may differ by. Ids may not differ at all."""

    precision: str
    """The coarsest kind of number in the engine, whose limits these are"""
    max_pixel_difference: float
    min_image_cosine: float
    """Of the worst image token"""
    max_kl_nats: float
    """Of the worst prompt"""
    min_top1_agreement: float | None
    """Of the worst prompt, ties aside; None where only KL is judged"""
    tie_nats: float
    """Tokens that the reference prefers by no more may change places."""
    max_lead_nats: float | None
    """By how much the reference may prefer its token where the greedy answers part; None: not judged"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an engine is its checkpoint, as far as its precision allows."""

    is_pass: bool
    stage: str | None
    """First stage past its limit"""
    prompt: str | None
    """First prompt that passes the limit there"""
    reason: str
    """One line with the figures"""


_MIN_COSINE = {"fp32": 1 - 1e-5, "fp16": 0.999, "bf16": 0.999, "int8": 0.99, "int4": 0.97}
_ANSWER_LIMITS = {
    "fp32": (1e-6, 1.0),
    "fp16": (1e-3, 0.98),
    "bf16": (5e-3, 0.96),
    "int8": (0.02, 0.95),
    "int4": (0.15, 0.85),
}
"""Kind of number -> most KL in nats, least top-1 agreement"""


def thresholds_for(precision: Precision, max_kl_nats: float | None = None) -> Thresholds:
    """The limits of an engine.

    Args:
        precision: of its manifest
        max_kl_nats: judges logits and greedy tokens alone, in place of the precision's limits
    """
    vision = _coarsest(precision.vision, precision.activations)
    kinds = (precision.decoder, precision.head, precision.embedding, precision.cache)
    answers = _coarsest(vision, *kinds, precision.decode_kv_cache)
    kl_nats, top1 = _ANSWER_LIMITS[answers]
    # Noise of variance v on every logit costs about v / 2 nats; the difference of two has 2 v.
    tie_nats = 0.0 if answers == "fp32" else 2 * math.sqrt(kl_nats)
    limits = Thresholds(
        precision=answers,
        max_pixel_difference=MAX_PIXEL_DIFFERENCE,
        min_image_cosine=_MIN_COSINE[vision],
        max_kl_nats=kl_nats,
        min_top1_agreement=top1,
        tie_nats=tie_nats,
        max_lead_nats=2 * tie_nats,
    )
    if max_kl_nats is None:
        return limits
    return replace(limits, max_kl_nats=max_kl_nats, min_top1_agreement=None, max_lead_nats=None)


def judge(comparisons: Sequence[CaseComparison], thresholds: Thresholds) -> Verdict:
    """The first stage, in the order of computation, in which a prompt passes a limit.

    A fault in one stage shows in all behind it. NaN passes every limit.
    """
    for stage, excess_of in _STAGES.items():
        for comparison in comparisons:
            excess = excess_of(comparison, thresholds)
            if excess is not None:
                reason = f"{stage}, prompt '{comparison.prompt}': {excess}"
                return Verdict(False, stage, comparison.prompt, reason)
    return Verdict(True, None, None, "")


def require_pass(verdict: Verdict, thresholds: Thresholds) -> None:
    """Refuse an engine that did not pass.

    Raises:
        ParityError: names the stage and its figures.
    """
    if verdict.is_pass:
        return
    is_rounded = thresholds.precision not in ("fp32", "fp16", "bf16")
    is_answer = verdict.stage in ("logits", "greedy tokens")
    advice = (
        "export with --calibration, a smaller --block-size or a higher --precision"
        if is_rounded and is_answer
        else "do not use it; export it again with this version"
    )
    raise ParityError(
        f"the {thresholds.precision} engine is not its checkpoint: {verdict.reason}; {advice}"
    )


def _coarsest(*kinds: str | None) -> str:
    return max((kind for kind in kinds if kind in COARSENESS), key=COARSENESS.index)


def _ids(one: CaseComparison, limits: Thresholds) -> str | None:
    found = one.id_difference
    if found is None:
        return None
    return (
        f"at position {found.position} the engine has {_id(found.engine)} "
        f"({found.engine_token!r}), the checkpoint's processor {_id(found.reference)} "
        f"({found.reference_token!r})"
    )


def _pixels(one: CaseComparison, limits: Thresholds) -> str | None:
    if one.pixel_difference is None or one.pixel_difference <= limits.max_pixel_difference:
        return None
    return (
        f"largest difference {one.pixel_difference:.2g} of -1 .. 1 "
        f"(at most {limits.max_pixel_difference:g})"
    )


def _image_features(one: CaseComparison, limits: Thresholds) -> str | None:
    if one.image_cosine is None or one.image_cosine >= limits.min_image_cosine:
        return None
    return f"smallest cosine {one.image_cosine:.6f} (at least {limits.min_image_cosine:g})"


def _logits(one: CaseComparison, limits: Thresholds) -> str | None:
    found, least = one.logits, limits.min_top1_agreement
    if found is None:
        return None
    is_close = found.kl_nats <= limits.max_kl_nats
    flips = sum(not lead <= limits.tie_nats for lead in found.lead_nats)
    agreement = 1 - flips / found.positions
    if is_close and (least is None or agreement >= least):
        return None
    words = f"KL {found.kl_nats:.2g} nats (at most {limits.max_kl_nats:g})"
    if least is None:
        return words
    return (
        f"{words}, top-1 {found.top1_agreement:.1%}, {agreement:.1%} without ties of "
        f"{limits.tie_nats:.2g} nats (at least {least:.0%})"
    )


def _greedy_tokens(one: CaseComparison, limits: Thresholds) -> str | None:
    if one.greedy is None or limits.max_lead_nats is None:
        return None
    if one.greedy.equal == one.greedy.tokens:
        return None
    if limits.max_lead_nats > 0 and one.greedy.lead_nats <= limits.max_lead_nats:
        return None
    return (
        f"the answers part after {one.greedy.equal} of {one.greedy.tokens} tokens, where the "
        f"reference prefers its own by {one.greedy.lead_nats:.2g} nats "
        f"(at most {limits.max_lead_nats:g})"
    )


def _id(token_id: int | None) -> str:
    return "no token" if token_id is None else f"token {token_id}"


_STAGES: dict[str, Callable[[CaseComparison, Thresholds], str | None]] = {
    "ids": _ids,
    "pixels": _pixels,
    "image features": _image_features,
    "logits": _logits,
    "greedy tokens": _greedy_tokens,
}
"""In the order of computation: what of a prompt is past its limit, in words"""
