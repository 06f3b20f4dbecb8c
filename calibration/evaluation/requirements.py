"""Figures that a user demands of an evaluation: `sensitivity(intracranial_haemorrhage)>=0.8`."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge_medgemma.calibration.evaluation.document import (
    EvaluationDocument,
    FindingEntry,
    Requirement,
)
from edge_medgemma.runtime.errors import EvaluationError

_FORM = re.compile(r"\s*([a-z_]+)\s*\(\s*([a-z_][a-z0-9_]*)\s*\)\s*>=\s*([0-9.]+)\s*")

Figure = Callable[[FindingEntry], tuple[float | None, int]]

FIGURES: Mapping[str, Figure] = {
    "sensitivity": lambda f: (f.primary.sensitivity.rate, f.primary.sensitivity.trials),
    "sensitivity_low": lambda f: (f.primary.sensitivity.low, f.primary.sensitivity.trials),
    "specificity": lambda f: (f.primary.specificity.rate, f.primary.specificity.trials),
    "specificity_low": lambda f: (f.primary.specificity.low, f.primary.specificity.trials),
    "auc": lambda f: (f.area.value, f.area.positives + f.area.negatives),
    "auc_low": lambda f: (f.area.low, f.area.positives + f.area.negatives),
}
"""Name -> the figure of a finding, of the primary table, and the scans it was counted over; `_low` is
the lower end of its 95 % interval."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A parsed requirement."""

    text: str
    figure: str
    finding: str
    least: float


def parse_demand(text: str) -> Demand:
    """Parse `FIGURE(FINDING)>=NUMBER`.

    Raises:
        EvaluationError: not of this form, an unknown figure, or a number that is no share.
    """
    found = _FORM.fullmatch(text)
    if found and found[1] in FIGURES:
        try:
            least = float(found[3])
        except ValueError:
            least = math.nan
        if 0 <= least <= 1:
            return Demand(text, found[1], found[2], least)
    raise EvaluationError(
        f"--require '{text}': expected FIGURE(FINDING)>=NUMBER with one of {', '.join(FIGURES)} and a "
        "number from 0 to 1"
    )


def check_findings(demands: Sequence[Demand], codes: Sequence[str]) -> None:
    """Refuse demands about findings that are not evaluated.

    Raises:
        EvaluationError: names the first.
    """
    for demand in demands:
        if demand.finding not in codes:
            raise EvaluationError(
                f"--require '{demand.text}': expected one of the labelled findings, {', '.join(codes)}"
            )


def check_prevalences(prevalences: Mapping[str, float], codes: Sequence[str]) -> None:
    """Refuse the prevalence of a finding that is not evaluated; `""` stands for all.

    Raises:
        EvaluationError: names the first.
    """
    for code in prevalences:
        if code and code not in codes:
            raise EvaluationError(
                f"--prevalence '{code}': expected one of the labelled findings, {', '.join(codes)}"
            )


def judge(demands: Sequence[Demand], findings: Sequence[FindingEntry]) -> tuple[Requirement, ...]:
    """What came of each demand."""
    entries = {finding.code: finding for finding in findings}
    judged = []
    for demand in demands:
        value, trials = FIGURES[demand.figure](entries[demand.finding])
        is_met = value is not None and value >= demand.least
        judged.append(Requirement(demand.text, value, trials, is_met))
    return tuple(judged)


def unmet_words(document: EvaluationDocument) -> tuple[str, ...]:
    """A line for each requirement that is not met."""
    return tuple(
        f"required {one.text}: "
        + (f"it is {one.value:.3f}" if one.value is not None else "there is no figure")
        + f" (n = {one.trials})"
        for one in document.requirements
        if not one.is_met
    )
