"""Fit of an engine's domain to the image features of calibration scans."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.domain import Domain, DomainPart, Features, FeatureSpace, ScanKind
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality

MOST_AXES = 8
"""On the demo engine 8 axes tell more foreign scans apart than 32, and need fewer slices."""

SLICES_PER_AXIS = 4
"""An axis that few slices carry is noise, which the next study does not share."""

FEWEST_STUDIES = 4
"""With fewer, how far a study may lie out is a guess."""


@dataclass(frozen=True, slots=True)
class CalibrationStudy:
    """Slices of one study as the engine sees them."""

    modality: Modality
    body_part: BodyPart
    pooled: Features
    """[slices, hidden]: mean of the image tokens of each slice"""
    scanner: str = ""
    """Manufacturer and a hash of the model's name; empty where the scan does not say."""


def fit_domain(studies: Sequence[CalibrationStudy]) -> Domain:
    """The domain of these studies; a kind of scan with fewer than `FEWEST_STUDIES` has no part."""
    kinds: dict[tuple[Modality, BodyPart], list[CalibrationStudy]] = defaultdict(list)
    for study in studies:
        kinds[study.modality, study.body_part].append(study)
    return Domain(
        tuple(
            _fit_part(kinds[kind]) for kind in sorted(kinds) if len(kinds[kind]) >= FEWEST_STUDIES
        )
    )


def widened(
    domain: Domain, kinds: Sequence[tuple[Modality, BodyPart]], expected: Features, actual: Features
) -> Domain:
    """The domain of an engine that sees the calibration's slices a little otherwise.

    Quantisation moves image features, and so every distance. The distances of the calibration
    studies grow as those of the same slices do, and never shrink.

    Args:
        domain: fitted to the features of the float engine.
        kinds: modality and body part of each of N slices.
        expected: [N, hidden], their mean image tokens by the float engine.
        actual: [N, hidden], the same by the engine.
    """
    return Domain(
        tuple(
            _widened_part(part, [kind == (part.kind.modality, part.kind.body_part) for kind in kinds],
                          expected, actual)
            for part in domain.parts
        )
    )  # fmt: skip


def _widened_part(
    part: DomainPart, rows: Sequence[bool], expected: Features, actual: Features
) -> DomainPart:
    if not any(rows):
        return part
    mask = np.array(rows)
    before, after = part.space.distances(expected[mask]), part.space.distances(actual[mask])
    growth = max(1.0, float(np.median(after / np.maximum(before, np.finfo(np.float32).tiny))))
    return replace(
        part,
        study_distances=part.study_distances * np.float32(growth),
        slice_distances=part.slice_distances * np.float32(growth),
    )


def _fit_part(studies: Sequence[CalibrationStudy]) -> DomainPart:
    """Mean, axes and variances of all slices; distances of each study measured without it."""
    medians, distances = [], []
    for left_out, study in enumerate(studies):
        others = [one.pooled for i, one in enumerate(studies) if i != left_out]
        found = fit_space(np.concatenate(others)).distances(study.pooled)
        distances.append(found)
        medians.append(np.median(found))
    first = studies[0]
    scanners = tuple(sorted({study.scanner for study in studies} - {""}))
    return DomainPart(
        kind=ScanKind(first.modality, first.body_part, scanners),
        space=fit_space(np.concatenate([study.pooled for study in studies])),
        study_distances=np.sort(medians).astype(np.float32),
        slice_distances=np.sort(np.concatenate(distances)).astype(np.float32),
    )


def fit_space(pooled: NDArray[np.floating]) -> FeatureSpace:
    """Principal axes of slices [N, H], N at least 2, and the mean variance of all other directions."""
    count, width = pooled.shape
    mean = pooled.mean(axis=0, dtype=np.float64)
    centred = pooled.astype(np.float64) - mean
    if count > width:  # many slices of few numbers: their covariance is the smaller matrix
        ascending, columns = np.linalg.eigh(centred.T @ centred / (count - 1))
        variances, rows = np.maximum(ascending[::-1], 0), columns[:, ::-1].T
    else:
        _, scales, rows = np.linalg.svd(centred, full_matrices=False)
        variances = scales**2 / (count - 1)
    kept = max(1, min(MOST_AXES, count // SLICES_PER_AXIS, width - 1))
    total = float(variances.sum())
    residual = float(variances[kept:].sum()) / (width - kept)
    smallest = max(total / width * 1e-6, np.finfo(np.float32).tiny)
    return FeatureSpace(
        mean=mean.astype(np.float32),
        axes=rows[:kept].astype(np.float32),
        variances=np.maximum(variances[:kept], smallest).astype(np.float32),
        residual_variance=max(residual, smallest),
    )
