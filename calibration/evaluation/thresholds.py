"""Thresholds of an evaluation: which predictions they are fitted on, and what they are bound to."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from edge_medgemma import __version__
from edge_medgemma.calibration.evaluation.document import EvaluationDocument, ProtocolProvenance
from edge_medgemma.calibration.evaluation.fitting import FITS, LabelledScores
from edge_medgemma.calibration.evaluation.records import Prediction
from edge_medgemma.runtime.errors import ThresholdError
from edge_medgemma.runtime.triage.scoring.operating_points import (
    OperatingPoint,
    OperatingPoints,
    ProtocolPoints,
    Target,
)


@dataclass(frozen=True, slots=True)
class FittedThresholds:
    """What could be fitted, and what could not."""

    points: OperatingPoints
    refused: tuple[str, ...]
    """One line for each finding without a threshold: what it needs and what it has."""


def fit_thresholds(
    document: EvaluationDocument,
    predictions: Sequence[Prediction],
    target: Target,
    split: str,
    findings: Collection[str] = (),
) -> FittedThresholds:
    """Operating points of every finding that has enough labelled and assessable studies.

    Args:
        document: of the evaluation; names engine, protocols, effort and slices.
        predictions: of the same evaluation.
        target: sensitivity and confidence.
        split: `cross` or `half`.
        findings: codes to fit; empty for all that are labelled.

    Raises:
        ThresholdError: the engine's weights are random, a code is not in the evaluation, or no finding
            has enough; or the predictions are not those of the document.
    """
    provenance = document.provenance
    if provenance.engine.has_random_weights:
        raise ThresholdError("the engine's weights are random: there is nothing to fit")
    codes = tuple(one.code for one in document.findings)
    for unknown in sorted(set(findings) - set(codes)):
        raise ThresholdError(
            f"the evaluation has no finding '{unknown}'; expected {' or '.join(codes)}"
        )
    _check_counts(document, predictions)
    entries: list[ProtocolPoints] = []
    refused: list[str] = []
    for protocol in provenance.protocols:
        fitted: list[OperatingPoint] = []
        for code in codes:
            if findings and code not in findings:
                continue
            rows = [
                row for row in predictions if (row.protocol, row.finding) == (protocol.name, code)
            ]
            if not rows:
                continue
            try:
                fitted.append(FITS[split](code, _scores(rows), target))
            except ThresholdError as error:
                refused.append(f"{code} {error}{_where(split)}")
        if fitted:
            entries.append(_entry(document, protocol, fitted))
    if not entries:
        raise ThresholdError("; ".join(refused) or "the evaluation has no labelled finding")
    points = OperatingPoints(
        schema_version=1,
        program_version=__version__,
        engine_sha256=provenance.engine.manifest_sha256,
        dataset=provenance.dataset,
        labels_sha256=provenance.labels_sha256,
        cases=tuple(sorted({row.case for row in predictions})),
        protocols=tuple(entries),
    )
    return FittedThresholds(points, tuple(refused))


def _check_counts(document: EvaluationDocument, predictions: Sequence[Prediction]) -> None:
    """Refuse predictions that are not those the document was made of, as far as counts tell."""
    for entry in document.findings:
        labels = [one.present for one in predictions if one.finding == entry.code]
        found = labels.count(True), labels.count(False)
        if found != (entry.positives, entry.negatives):
            raise ThresholdError(
                f"predictions.csv has {found[0]} scans with {entry.code} and {found[1]} without it, "
                f"evaluation.json {entry.positives} and {entry.negatives}: they are not of one "
                "evaluation; evaluate again"
            )


def _where(split: str) -> str:
    return " in the half that is fitted on" if split == "half" else ""


def _scores(rows: Sequence[Prediction]) -> LabelledScores:
    """Of the studies that are labelled and were assessable, whatever was flagged in them."""
    chosen = [
        (row.patient, row.log_odds, row.present)
        for row in rows
        if row.is_assessable
        and row.present is not None
        and row.log_odds is not None
        and math.isfinite(row.log_odds)
    ]
    patients, log_odds, present = zip(*chosen, strict=True) if chosen else ((), (), ())
    return LabelledScores(
        np.array(patients, np.int64), np.array(log_odds, np.float64), np.array(present, np.bool_)
    )


def _entry(
    document: EvaluationDocument, protocol: ProtocolProvenance, fitted: Sequence[OperatingPoint]
) -> ProtocolPoints:
    return ProtocolPoints(
        protocol=protocol.name,
        protocol_sha256=protocol.sha256,
        effort=document.provenance.effort,
        least_slices=protocol.slices,
        most_slices=protocol.slices,
        findings=tuple(fitted),
    )
