"""Thresholds and percentages that were fitted to labelled scans: `thresholds.json`.

They hold for the engine, the protocol, the effort and the number of slices that they were fitted with
and for no other: where one differs, the protocol's thresholds are used and no percentage is given.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from edge_medgemma.runtime.documents import (
    Count,
    Finite,
    Positive,
    Sha256,
    Size,
    Text,
    dump_sealed,
    parse_sealed,
)
from edge_medgemma.runtime.errors import ThresholdError
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.protocol import Finding, Protocol
from edge_medgemma.runtime.triage.report import Effort

THRESHOLDS_NAME = "thresholds.json"
"""In the engine directory. It is no file of the manifest: thresholds are fitted to a finished engine."""

SCHEMA_VERSION = 1

_INSTEAD = "The protocol's own thresholds are used in their place, and no percentage is given."

CaseHash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{24}$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Split(StrEnum):
    """How the scans that a rate was measured on were kept from those that the threshold was fitted on."""

    CROSS_FITTED = "cross_fitted"
    """Each patient was judged by a threshold that was fitted without them, in turn"""
    HELD_OUT = "held_out"
    """The patients took no part in any fit"""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % interval (Wilson)."""

    successes: Size
    trials: Count
    low: Share
    high: Share

    def __post_init__(self) -> None:
        if self.successes > self.trials:
            raise ValueError(f"{self.successes} successes of {self.trials}")

    @property
    def value(self) -> float:
        """The share."""
        return self.successes / self.trials


@dataclass(frozen=True, slots=True)
class Sample:
    """Labelled scans. A patient may have the finding in one study and not in another."""

    studies: Count
    patients: Count
    positives: Count
    """Patients with the finding: what a rate counts, as studies of one patient are no two trials"""
    negatives: Count
    """Patients without it"""


@dataclass(frozen=True, slots=True)
class Target:
    """What a threshold was asked for."""

    sensitivity: Share
    """Least share of patients with the finding that it should flag"""
    confidence: Share
    """Of its being so, by the exact binomial distribution"""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Threshold and percentage of one finding."""

    finding: Text
    """Its code in the protocol"""
    threshold: Finite
    """The finding is flagged where the log-odds of yes against no are at or above this; no baseline is
    subtracted"""
    slope: Positive
    intercept: Finite
    """The probability is the logistic of slope times log-odds plus intercept. Platt 1999"""
    target: Target | None
    """None where the threshold is that of an even chance"""
    fitted_on: Sample
    measured_on: Sample
    split: Split
    sensitivity: Rate
    """Of patients with the finding: all of whose studies with it were flagged"""
    specificity: Rate
    """Of patients without it: none of whose studies without it was flagged"""

    def probability(self, log_odds: float) -> float:
        """Chance that the finding is present."""
        value = self.slope * log_odds + self.intercept
        if value >= 0:
            return 1.0 / (1.0 + math.exp(-value))
        return math.exp(value) / (1.0 + math.exp(value))


@dataclass(frozen=True, slots=True)
class ProtocolPoints:
    """Operating points of one protocol, and what they are bound to besides the engine."""

    protocol: Text
    """Its name"""
    protocol_sha256: Sha256
    """Hash of its file"""
    effort: Effort
    least_slices: Count
    most_slices: Count
    """Slices asked for, the protocol's number or the user's, in the runs that they were fitted with"""
    findings: Annotated[tuple[OperatingPoint, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        codes = [one.finding for one in self.findings]
        if len(set(codes)) < len(codes):
            raise ValueError(f"a finding of protocol '{self.protocol}' stands twice")


@dataclass(frozen=True, slots=True)
class OperatingPoints:
    """The file."""

    schema_version: Annotated[int, msgspec.Meta(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)]
    program_version: str
    engine_sha256: Sha256
    """Hash of the manifest of the only engine that they hold for"""
    dataset: Text
    """Kind of scans and labels that they were fitted on"""
    labels_sha256: Sha256 | None
    """Hash of the labels; None for scans that the program drew"""
    cases: tuple[CaseHash, ...]
    """Of the evaluation that they were fitted on, as predictions.csv names them: no other evaluation
    of one of these is reported. Empty for scans that the program drew"""
    protocols: Annotated[tuple[ProtocolPoints, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        for place, one in enumerate(self.protocols):
            for other in self.protocols[:place]:
                is_same = (one.protocol_sha256, one.effort) == (other.protocol_sha256, other.effort)
                apart = one.least_slices > other.most_slices or other.least_slices > one.most_slices
                if is_same and not apart:
                    raise ValueError(f"two entries fit the same run of protocol '{one.protocol}'")


@dataclass(frozen=True, slots=True)
class FittingPoints:
    """Operating points that hold for one pass over a study."""

    by_finding: Mapping[str, OperatingPoint] = field(default_factory=dict)
    problem: Problem | None = None
    """Why they are not there for some finding; None where no thresholds were fitted at all"""


def dump_operating_points(points: OperatingPoints) -> str:
    """The text of thresholds.json, sealed."""
    return dump_sealed(points)


def write_operating_points(points: OperatingPoints, path: Path) -> None:
    """Write the file; readers see the old one or the whole new one.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    write_atomically(path, dump_operating_points(points).encode())


def read_operating_points(directory: Path, path: Path | None = None) -> OperatingPoints | None:
    """The file `path`, or else the one in an engine directory; None where there is neither.

    Raises:
        ThresholdError: `path` is not there, or the file cannot be read, was altered, or breaks a rule.
    """
    chosen = path or directory / THRESHOLDS_NAME
    try:
        return parse_sealed(chosen.read_bytes(), OperatingPoints)
    except FileNotFoundError:
        if path is None:
            return None
        raise ThresholdError(
            f"no file of thresholds at '{path}'; 'edge-medgemma thresholds' writes one"
        ) from None
    except OSError as error:
        raise ThresholdError(
            f"thresholds '{chosen}' cannot be read ({error.strerror or error}); check the path"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ThresholdError(
            f"'{chosen}' is altered or no file of thresholds ({error}); fit them again with "
            "'edge-medgemma thresholds'"
        ) from None


def fitting_points(
    points: OperatingPoints | None,
    engine_sha256: str,
    protocol: Protocol,
    findings: Iterable[Finding],
    effort: Effort,
    slices: int,
) -> FittingPoints:
    """The operating points that hold for a pass, or why they do not.

    Args:
        points: that were fitted; None where none were.
        engine_sha256: hash of the engine's manifest.
        protocol: that is applied.
        findings: of it, that the engine is asked about.
        effort: of the answers.
        slices: asked for; in a coarse pass the slices shown.
    """
    if points is None:
        return FittingPoints()
    if points.engine_sha256 != engine_sha256:
        return _unfit("they were fitted for another engine")
    named = [one for one in points.protocols if one.protocol == protocol.name]
    same = [one for one in named if one.protocol_sha256 == protocol.sha256]
    if not same:
        known = f"an earlier version of protocol {protocol.name}"
        return _unfit(f"they were fitted for {known if named else 'other protocols'}")
    asked = [one for one in same if one.effort is effort]
    if not asked:
        return _unfit(f"they were fitted for {same[0].effort} effort, not for {effort}")
    fitting = [one for one in asked if one.least_slices <= slices <= one.most_slices]
    if not fitting:
        return _unfit(f"they were fitted for {_slice_words(asked[0])}, not for {slices}")
    by_finding = {one.finding: one for one in fitting[0].findings}
    missing = [one.title for one in findings if one.code not in by_finding]
    if not missing:
        return FittingPoints(by_finding)
    detail = f"No threshold was fitted for {', '.join(missing)}. {_INSTEAD}"
    return FittingPoints(by_finding, Problem("thresholds_not_used", detail))


def _unfit(reason: str) -> FittingPoints:
    detail = f"Fitted thresholds are not used: {reason}. {_INSTEAD}"
    return FittingPoints(problem=Problem("thresholds_not_used", detail))


def _slice_words(entry: ProtocolPoints) -> str:
    if entry.least_slices == entry.most_slices:
        return f"{entry.least_slices} slices"
    return f"{entry.least_slices} to {entry.most_slices} slices"
