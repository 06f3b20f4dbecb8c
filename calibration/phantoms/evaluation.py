"""Accuracy of an engine on unseen phantoms, against what was drawn into them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.phantoms.drawing import Phantom, draw_phantom
from edge_medgemma.calibration.phantoms.volume import to_volume
from edge_medgemma.calibration.statistics.metrics import (
    area_under_curve,
    bootstrap_interval,
    wilson_interval,
)
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.triage.prefill import prefill_slices
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.scoring.findings import score_finding
from edge_medgemma.runtime.triage.scoring.questions import ask_fast, assessed_findings

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class FindingQuality:
    """Accuracy for one finding; intervals are 95 %."""

    code: str
    positives: int
    negatives: int
    area_under_curve: float
    area_interval: Interval
    sensitivity: float
    sensitivity_interval: Interval
    specificity: float
    specificity_interval: Interval
    """Both at the protocol's threshold."""


def score_phantom(engine: Engine, protocol: Protocol, phantom: Phantom) -> Mapping[str, float]:
    """Log-odds of every finding that the engine knows, by code, exactly as triage asks them."""
    chosen = sample_slices(len(phantom.hounsfield), protocol.slices)
    stack = render_stack(to_volume(phantom, chosen))
    features = engine.encode_images(stack.pixels)
    prefix = prefill_slices(engine, protocol.instruction, len(features), features)
    return ask_fast(engine, prefix, assessed_findings(protocol, engine.manifest)).log_odds


def evaluate_engine(
    engine: Engine,
    protocol: Protocol,
    seeds: Sequence[int],
    on_progress: Callable[[int, int], None] | None = None,
    draw: Callable[[int], Phantom] = draw_phantom,
) -> tuple[FindingQuality, ...]:
    """Draw the phantoms of `seeds`, triage each, and compare with the truth.

    `on_progress` is called with the phantoms done and the phantoms in all; `draw`
    makes the phantom of a seed.
    """
    scope = engine.manifest.scope
    calibrated = scope.calibrated_log_odds if scope else {}
    findings = assessed_findings(protocol, engine.manifest)
    scores = np.zeros((len(seeds), len(findings)))
    present = np.zeros(scores.shape, bool)
    for row, seed in enumerate(seeds):
        phantom = draw(seed)
        log_odds = score_phantom(engine, protocol, phantom)
        for column, finding in enumerate(findings):
            score = score_finding(log_odds[finding.code], None, calibrated.get(finding.code))
            scores[row, column] = score.value
            present[row, column] = finding.code in phantom.findings
        if on_progress is not None:
            on_progress(row + 1, len(seeds))
    return tuple(
        _quality(finding, scores[:, column], present[:, column])
        for column, finding in enumerate(findings)
    )


def _quality(
    finding: Finding, scores: NDArray[np.float64], present: NDArray[np.bool_]
) -> FindingQuality:
    flagged = scores >= finding.threshold
    positives, negatives = int(present.sum()), int((~present).sum())
    hits, passes = int((flagged & present).sum()), int((~flagged & ~present).sum())
    return FindingQuality(
        code=finding.code,
        positives=positives,
        negatives=negatives,
        area_under_curve=area_under_curve(scores, present),
        area_interval=bootstrap_interval(scores, present),
        sensitivity=hits / positives if positives else float("nan"),
        sensitivity_interval=wilson_interval(hits, positives),
        specificity=passes / negatives if negatives else float("nan"),
        specificity_interval=wilson_interval(passes, negatives),
    )
