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
from edge_medgemma.runtime.triage.protocol import Protocol
from edge_medgemma.runtime.triage.report import Effort
from edge_medgemma.runtime.triage.scoring.findings import score_finding
from edge_medgemma.runtime.triage.scoring.operating_points import (
    fitting_points,
    read_operating_points,
)
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
    """Both at the threshold that triage takes: the fitted one of the engine, or the protocol's."""


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
    findings = assessed_findings(protocol, engine.manifest)
    points = fitting_points(
        read_operating_points(engine.directory),
        engine.manifest.sha256,
        protocol,
        findings,
        Effort.FAST,
        protocol.slices,
    ).by_finding
    scores = np.zeros((len(seeds), len(findings)))
    flagged = np.zeros(scores.shape, bool)
    present = np.zeros(scores.shape, bool)
    for row, seed in enumerate(seeds):
        phantom = draw(seed)
        log_odds = score_phantom(engine, protocol, phantom)
        for column, finding in enumerate(findings):
            value = log_odds[finding.code]
            score = score_finding(finding, value, None, points.get(finding.code))
            scores[row, column], flagged[row, column] = score.value, score.is_flagged
            present[row, column] = finding.code in phantom.findings
        if on_progress is not None:
            on_progress(row + 1, len(seeds))
    return tuple(
        _quality(finding.code, scores[:, column], flagged[:, column], present[:, column])
        for column, finding in enumerate(findings)
    )


def _quality(
    code: str,
    scores: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    present: NDArray[np.bool_],
) -> FindingQuality:
    positives, negatives = int(present.sum()), int((~present).sum())
    hits, passes = int((flagged & present).sum()), int((~flagged & ~present).sum())
    return FindingQuality(
        code=code,
        positives=positives,
        negatives=negatives,
        area_under_curve=area_under_curve(scores, present),
        area_interval=bootstrap_interval(scores, present),
        sensitivity=hits / positives if positives else float("nan"),
        sensitivity_interval=wilson_interval(hits, positives),
        specificity=passes / negatives if negatives else float("nan"),
        specificity_interval=wilson_interval(passes, negatives),
    )
