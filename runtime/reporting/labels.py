"""Names of enumerations and numbers for human readers."""

import math
from datetime import datetime

from edge_medgemma.runtime.triage.report import FindingStatus
from edge_medgemma.runtime.triage.urgency import NO_FLAG_TEXT, Urgency

URGENCY_WORDS = {
    Urgency.CRITICAL: "critical",
    Urgency.URGENT: "urgent",
    Urgency.NOT_ASSESSABLE: "not assessable",
    Urgency.ROUTINE: "no flag raised",
}

HEADLINES = {
    Urgency.CRITICAL: "Critical: look now",
    Urgency.URGENT: "Urgent: look within hours",
    Urgency.NOT_ASSESSABLE: "Not assessable: a human must look",
    Urgency.ROUTINE: NO_FLAG_TEXT[0].upper() + NO_FLAG_TEXT[1:],
}
"""Times follow the ACR Actionable Reporting Work Group: category 1 minutes, category 2 hours."""

FINDING_STATUS_WORDS = {
    FindingStatus.FLAGGED: "possible",
    FindingStatus.NOT_FLAGGED: "no flag",
    FindingStatus.NOT_ASSESSED: "not assessed",
}


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
