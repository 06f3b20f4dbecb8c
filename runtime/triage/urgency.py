"""Urgency of a study, decided here by rules, never by words of the model.

The vocabulary is that of the ACR Actionable Reporting Work Group (critical is category 1, minutes;
urgent is category 2, hours; routine is category 3 or no flag) with one word of our own for a study
on which nothing can be said. A limitation only ever moves a study up.
"""

from collections.abc import Iterable
from enum import StrEnum

from edge_medgemma.runtime.slicing.volume import Problem


class Urgency(StrEnum):
    """Classes in the order of the queue, most urgent first."""

    CRITICAL = "critical"
    URGENT = "urgent"
    NOT_ASSESSABLE = "not_assessable"
    """Nothing was flagged and something stood in the way of assessing it: a human must look."""
    ROUTINE = "routine"
    """No flag raised, which is not a normal report, or only a finding without urgency."""

    @property
    def rank(self) -> int:
        """Place in the queue, 0 first."""
        return tuple(Urgency).index(self)


NO_FLAG_TEXT = "no flag raised: not a normal report"

BLOCKING_PROBLEMS = {
    "almost_only_air": "there is hardly anything but air in the slices",
    "bits_beyond_stored": "the picture is cut to pieces by a wrong header; send it again",
    "body_part_conflict": "the protocol is not meant for this body part",
    "conflicting_copies": "an image came twice with different content; look at the original images",
    "constant_intensity": "all slices are empty",
    "contrast_agent": "a contrast agent was given, which looks like blood",
    "coverage_unknown": "it is not known how much of the body part is in the series",
    "display_black": "the picture is black",
    "display_inverted": "black and white seem to be exchanged; send the image again",
    "display_white": "the picture is white",
    "for_processing": "these are raw values of the detector; send the image made for reading",
    "critical_finding_not_assessed": "a critical finding was not assessed",
    "empty_slices": "most slices are empty",
    "finding_not_scored": "the engine gave no usable answer to a question",
    "implausible_hounsfield": "the grey values of this CT are probably wrong; send the original images again",
    "implausible_size": "the sizes in the header are impossible; send the original images again",
    "insufficient_coverage": "too little of the body part is in the series; send all slices",
    "insufficient_sampling": "too few slices were looked at",
    "may_be_incomplete": "images may be missing; send the study again",
    "no_finding_assessed": "this engine can answer none of the protocol's questions",
    "no_protocol": "no protocol fits this study",
    "body_part_unknown": "the scan does not say which body part it shows; choose a protocol",
    "no_series": "no series of the study can be used",
    "not_looked_at": "it was not looked at yet",
    "not_hounsfield": "the grey values of this CT are wrong (no Hounsfield units); send the original images again",
    "orientation_conflict": "left and right may be exchanged: the file gives two orientations",
    "orientation_not_stated": "it is not known which way up the slices are",
    "outside_scope": "this engine was not made for such scans",
    "random_weights": "the engine's weights are random: nothing it says means anything",
    "reasoning_not_finished": "the model did not finish its reasoning",
    "slices_without_effect": "the engine answers as if the slices were blank",
    "slices_too_far_apart": "the slices are too far apart; send all slices",
    "slices_lost": "too many slices could not be read; send them again",
    "unlike_calibration": "unlike anything this engine was calibrated on",
    "triage_failed": "the study could not be triaged",
    "wrapped_values": "bright and dark jump into each other; send the original images again",
}
"""Problems under which the absence of a flag means nothing, each with its words for a reader."""


WARNINGS = {
    "clock_not_set": "the clock of this device was wrong when the study came; mistrust its times",
    "several_patients": "check whose scan this is: images of another person carry its number",
}
"""Problems that withhold nothing and yet must stand where nobody overlooks them."""


def most_urgent(urgencies: Iterable[Urgency]) -> Urgency:
    """The first in the queue; routine where there are none."""
    return min(urgencies, key=lambda urgency: urgency.rank, default=Urgency.ROUTINE)


def study_urgency(
    flagged: Iterable[Urgency], problems: Iterable[Problem]
) -> tuple[Urgency, tuple[str, ...]]:
    """Urgency of a study and its limitations: in plain words, what stood in the way.

    Args:
        flagged: urgency of each flagged finding.
        problems: everything known to be wrong. One of `BLOCKING_PROBLEMS` keeps a study without an
            urgent flag from being called routine; none can take a flag away.
    """
    named = tuple(problems)
    blocking = [BLOCKING_PROBLEMS[p.name] for p in named if p.name in BLOCKING_PROBLEMS]
    warnings = [WARNINGS[p.name] for p in named if p.name in WARNINGS]
    limited = [Urgency.NOT_ASSESSABLE] if blocking else []
    return most_urgent([*flagged, *limited]), tuple(dict.fromkeys([*warnings, *blocking]))
