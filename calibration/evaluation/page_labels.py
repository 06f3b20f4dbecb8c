"""Figures of an evaluation in words, for its page; no number without the scans it was counted over."""

from collections.abc import Callable, Mapping

from edge_medgemma.calibration.evaluation.document import (
    Area,
    AreaChange,
    PairedFinding,
    Proportion,
)
from edge_medgemma.calibration.evaluation.records import Outcome
from edge_medgemma.runtime.reporting.labels import clock, minus, sentence, signed

DASH = "–"

_PLURALS = {"labelled study": "labelled studies", "miss": "misses"}

_OUTCOMES = {
    Outcome.FLAGGED: "flagged",
    Outcome.NOT_FLAGGED: "not flagged",
    Outcome.NOT_ASSESSABLE: "not assessable",
}


def count(number: int, noun: str) -> str:
    """`1 scan`, `2 scans`, `2 misses`."""
    return f"{number} {noun if number == 1 else _PLURALS.get(noun, noun + 's')}"


def percent(share: float) -> str:
    """One decimal; never 100 or 0 by rounding."""
    value = 100 * share
    if 0 < value < 0.05:
        return "< 0.1 %"
    if 99.95 <= value < 100:
        return "> 99.9 %"
    return f"{value:.1f} %"


def percent_or_dash(share: float | None) -> str:
    """A dash for what could not be counted."""
    return DASH if share is None else percent(share)


def counts(one: Proportion) -> str:
    """`57 of 60`."""
    return f"{one.successes} of {one.trials}"


def interval(one: Proportion) -> str:
    """`(86.3–98.3)` in per cent; empty where it is not given."""
    if one.low is None or one.high is None:
        return ""
    return f"({100 * one.low:.1f}–{100 * one.high:.1f})"


def area_counts(one: Area) -> str:
    """What an area was counted over: with and without the finding."""
    return f"{one.positives} / {one.negatives}"


def area_value(one: Area) -> str:
    """The area with its interval; a dash where it is not given."""
    if one.value is None:
        return DASH
    if one.low is None or one.high is None:
        return f"{one.value:.3f}"
    return f"{one.value:.3f} ({one.low:.3f}–{one.high:.3f})"


def area_change(one: AreaChange) -> str:
    """Second less first, with interval and counts."""
    over = f"{one.positives} with, {one.negatives} without"
    if one.value is None:
        return f"{DASH} ({over})"
    interval = ""
    if one.low is not None and one.high is not None:
        interval = f" ({one.low:+.3f} to {one.high:+.3f})"
    return f"{minus(f'{one.value:+.3f}{interval}')}; {over}"


def change_of_log_odds(one: PairedFinding) -> str:
    """Median and largest change, and over how many scans."""
    if one.median_change is None or one.largest_absolute_change is None:
        return DASH
    largest = f"{one.largest_absolute_change:.2f}"
    return f"{signed(one.median_change)} ({largest}), {count(one.log_odds_scans, 'scan')}"


def p_value(value: float | None) -> str:
    """Three decimals; `< 0.001` below."""
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def decimals(value: float | None) -> str:
    """Three decimals; a dash for what could not be counted."""
    return DASH if value is None else f"{value:.3f}"


def time_words(seconds: float | None) -> str:
    """Seconds, or minutes from two on."""
    if seconds is None:
        return DASH
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def precision_words(precision: Mapping[str, str]) -> str:
    """Parts with the way their weights are stored."""
    return ", ".join(f"{part} {name}" for part, name in precision.items())


def label_words(present: bool | None) -> str:
    """What the labels say."""
    return {True: "present", False: "absent", None: "no label"}[present]


def most_frequent_first(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    """Reasons with their counts."""
    return sorted(reasons.items(), key=lambda item: (-item[1], item[0]))


FILTERS: dict[str, Callable[..., object]] = {
    "area_change": area_change,
    "area_counts": area_counts,
    "area_value": area_value,
    "change": change_of_log_odds,
    "clock": clock,
    "count": count,
    "counted": most_frequent_first,
    "counts": counts,
    "decimals": decimals,
    "interval": interval,
    "label": label_words,
    "minus": minus,
    "outcome": lambda outcome: _OUTCOMES[Outcome(outcome)],
    "p_value": p_value,
    "percent": percent,
    "percent_or_dash": percent_or_dash,
    "precision": precision_words,
    "sentence": sentence,
    "signed": signed,
    "time": time_words,
}
"""Of the template."""
