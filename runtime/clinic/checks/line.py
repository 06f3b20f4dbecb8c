"""One line of a check."""

from dataclasses import dataclass
from enum import StrEnum


class CheckStatus(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """The box does its work; somebody should know."""
    FAIL = "fail"
    """Something that the box is there for does not work."""


@dataclass(frozen=True, slots=True)
class CheckLine:
    """What was looked at, and what came of it. No data of patients."""

    name: str
    """Stable, snake case; of a peer, `peer_NAME`."""
    status: CheckStatus
    finding: str
    """What was found, in plain words."""
    advice: str
    """What to do; empty where nothing is to be done."""


def ok(name: str, finding: str) -> CheckLine:
    """A line without anything to do."""
    return CheckLine(name, CheckStatus.OK, finding, "")


def warn(name: str, finding: str, advice: str) -> CheckLine:
    """A line of something that should be known."""
    return CheckLine(name, CheckStatus.WARN, finding, advice)


def fail(name: str, finding: str, advice: str) -> CheckLine:
    """A line of something that does not work."""
    return CheckLine(name, CheckStatus.FAIL, finding, advice)
