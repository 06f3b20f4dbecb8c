"""Names of enumerations and numbers for human readers."""

import math
from collections.abc import Collection
from datetime import datetime

from edge_medgemma.runtime.triage.urgency import Urgency


def urgency_words(urgency: Urgency, flagged: Collection[object]) -> str:
    """The urgency of a study; `no flag raised` only where none was.

    Args:
        urgency: of the study
        flagged: its flagged findings
    """
    if urgency is Urgency.ROUTINE and not flagged:
        return "no flag raised"
    return urgency.replace("_", " ")


def clock(created_at: str) -> str:
    """`2026-11-23T18:30:05+00:00` as `2026-11-23 18:30 UTC`."""
    return datetime.fromisoformat(created_at).strftime("%Y-%m-%d %H:%M UTC")


def signed(value: float | None) -> str:
    """Two decimals with a true minus; a dash for what was not measured."""
    if value is None or not math.isfinite(value):
        return "–"
    return minus(f"{value:+.2f}")


def minus(text: str) -> str:
    """Hyphens of numbers as true minus signs."""
    return text.replace("-", "−")


def sentence(text: str) -> str:
    """Capital letter and full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
