"""Distance of a scan from the scans that an engine was calibrated on, by its image features.

An engine is no less sure of itself on a scan unlike any that it knows (a softmax is surest far from
its data), but its image features lie elsewhere. A slice is the mean of its image tokens; its
distance is that of Mahalanobis under a covariance of few principal axes and one variance for all
other directions (Tipping and Bishop, "Probabilistic principal component analysis", 1999). The
distances that it is compared with are those of the calibration studies, each measured without
itself. They are kept for each kind of scan, in one file of the engine directory.

domain.safetensors, `i` the place of a kind in the metadata `kinds`, `H` hidden size, `K` axes:
    mean.{i} [H], axes.{i} [K, H], variances.{i} [K], residual_variance.{i} [1],
    study_distances.{i} [studies], slice_distances.{i} [slices], both ascending; all float32
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from edge_medgemma.runtime.documents import parse_json
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality

DOMAIN_FILE = "domain.safetensors"

UNLIKE_RATIO = 1.5
"""Unlike the calibration studies: farther out than this many times all but one in a hundred of them."""

UNLIKE_RATIO_OF_FARTHEST = 1.25
"""The same where a study lies farther out than every one of enough calibration studies."""

ENOUGH_STUDIES = 99
"""Calibration studies from which on being farther out than all of them has a chance of 1 %."""

LIMIT_QUANTILE = 0.99

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ScanKind:
    """Scans that are compared with each other."""

    modality: Modality
    body_part: BodyPart
    scanners: tuple[str, ...]
    """Manufacturers of the calibration scans and a hash of each model's name."""


@dataclass(frozen=True, slots=True)
class _Kinds:
    """Metadata of the file."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    kinds: tuple[ScanKind, ...]


@dataclass(frozen=True, slots=True)
class StudyDistance:
    """Distance of one study's slices, as a ratio to the calibration studies'."""

    slice_ratios: tuple[float, ...]
    """Distance of each slice over that which 1 % of the calibration slices pass."""
    ratio: float
    """Median distance of the slices over that which 1 % of the calibration studies pass."""
    conformal_p: float
    """Share of the calibration studies that lie as far out, this study counted among them."""
    num_studies: int
    """Calibration studies it was compared with."""

    @property
    def is_unlike(self) -> bool:
        """Whether nothing is known of the engine's answers about such a study."""
        if not math.isfinite(self.ratio) or self.ratio > UNLIKE_RATIO:
            return True
        is_farthest = self.conformal_p <= 1 / (self.num_studies + 1)
        has_enough = self.num_studies >= ENOUGH_STUDIES
        return is_farthest and has_enough and self.ratio > UNLIKE_RATIO_OF_FARTHEST


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """Mean and covariance of slices: principal axes and one variance for the rest."""

    mean: Features
    """[H]"""
    axes: Features
    """[K, H], orthonormal"""
    variances: Features
    """[K]"""
    residual_variance: float
    """Of each direction that is no axis."""

    def distances(self, pooled: Features) -> NDArray[np.float64]:
        """[N]: Mahalanobis distance of slices [N, H], root mean square over the directions."""
        centred = pooled.astype(np.float64) - self.mean
        along = centred @ self.axes.T.astype(np.float64)
        residual = np.maximum((centred**2).sum(-1) - (along**2).sum(-1), 0)
        squared = (along**2 / self.variances).sum(-1) + residual / self.residual_variance
        distances: NDArray[np.float64] = np.sqrt(squared / len(self.mean))
        return distances


@dataclass(frozen=True, slots=True)
class DomainPart:
    """The calibration scans of one kind."""

    kind: ScanKind
    space: FeatureSpace
    study_distances: Features
    """[studies], ascending: median distance of each study's slices, measured without the study"""
    slice_distances: Features
    """[slices], ascending: the same of single slices"""

    def measure(self, pooled: Features) -> StudyDistance:
        """Distance of a study.

        Args:
            pooled: [N, H], mean of the image tokens of each slice; N at least 1
        """
        distances = self.space.distances(pooled)
        median, studies = float(np.median(distances)), self.study_distances
        as_far = int((studies >= median).sum()) if math.isfinite(median) else 0
        return StudyDistance(
            slice_ratios=tuple((distances / limit(self.slice_distances)).tolist()),
            ratio=median / limit(studies),
            conformal_p=(1 + as_far) / (len(studies) + 1),
            num_studies=len(studies),
        )


@dataclass(frozen=True, slots=True)
class Domain:
    """All that an engine was calibrated on."""

    parts: tuple[DomainPart, ...]

    def part(self, modality: Modality, body_part: BodyPart) -> DomainPart | None:
        """The scans of one kind; None where there were too few."""
        for part in self.parts:
            if (part.kind.modality, part.kind.body_part) == (modality, body_part):
                return part
        return None


def pool_tokens(features: Features) -> Features:
    """[N, H]: mean over the image tokens of slices [N, tokens_per_image, H]."""
    pooled: Features = features.mean(axis=1, dtype=np.float32)
    return pooled


def limit(distances: Features) -> float:
    """The distance that 1 % of the calibration's distances pass."""
    return float(np.quantile(distances, LIMIT_QUANTILE))


def dump_domain(domain: Domain) -> bytes:
    """The content of domain.safetensors; equal domains give equal bytes."""
    arrays: dict[str, Features] = {}
    for i, part in enumerate(domain.parts):
        arrays |= {
            f"{name}.{i}": np.ascontiguousarray(array, np.float32)  # the library ignores strides
            for name, array in _arrays(part)
        }
    kinds = _Kinds(1, tuple(part.kind for part in domain.parts))
    data: bytes = save(arrays, {"kinds": msgspec.json.encode(kinds).decode()})
    return data


def read_domain(directory: Path, manifest: Manifest) -> Domain | None:
    """What the engine in `directory` was calibrated on; None where it does not say.

    Raises:
        EngineError: the file is not a domain, or not one of this engine.
    """
    if DOMAIN_FILE not in manifest.files:
        return None
    try:
        with safe_open(directory / DOMAIN_FILE, "numpy") as file:
            kinds = parse_json((file.metadata() or {}).get("kinds", "").encode(), _Kinds).kinds
            width = manifest.text.hidden_size
            return Domain(tuple(_read_part(file, i, kind, width) for i, kind in enumerate(kinds)))
    except (OSError, ValueError, SafetensorError) as error:
        raise EngineError(
            f"{DOMAIN_FILE} of engine '{directory.name}' cannot be used ({error}); copy or export "
            "the engine again"
        ) from None


def without_scope(manifest: Manifest) -> Manifest:
    """The manifest of an engine that is asked whatever the scan: to measure a device, not a patient."""
    files = {name: record for name, record in manifest.files.items() if name != DOMAIN_FILE}
    return replace(manifest, scope=None, files=files)


def _arrays(part: DomainPart) -> Sequence[tuple[str, Features]]:
    space = part.space
    return (
        ("mean", space.mean),
        ("axes", space.axes),
        ("variances", space.variances),
        ("residual_variance", np.array([space.residual_variance], np.float32)),
        ("study_distances", part.study_distances),
        ("slice_distances", part.slice_distances),
    )


def _read_part(file: Any, place: int, kind: ScanKind, width: int) -> DomainPart:
    names = ("mean", "axes", "variances", "residual_variance", "study_distances", "slice_distances")
    arrays: dict[str, Features] = {name: file.get_tensor(f"{name}.{place}") for name in names}
    mean, axes, variances, residual, studies, slices = arrays.values()
    shapes = (mean.shape == (width,), axes.shape == (len(variances), width), residual.shape == (1,))
    is_finite = all(np.isfinite(array).all() for array in arrays.values())
    positive = (variances, residual, studies[-1:], slices[-1:])
    if not (all(shapes) and is_finite and all((one > 0).all() for one in positive)):
        raise ValueError(f"its numbers for {kind.modality} {kind.body_part} do not fit the engine")
    space = FeatureSpace(mean, axes, variances, float(residual[0]))
    return DomainPart(kind, space, studies, slices)
