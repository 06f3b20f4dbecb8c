"""The last associations in plain data, for the person who sets up a scanner. Nothing of a scan is in it."""

import contextlib
import string
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.documents import dump_json
from edge_medgemma.runtime.files import write_atomically

KEPT = 20
_PRINTABLE = frozenset(string.digits + string.ascii_letters + string.punctuation + " ")
_TITLE_LENGTH = 16


class Outcome(StrEnum):
    """How an association ended, or why there was none; `OUTCOME_WORDS` says it to people."""

    OPEN = "open"
    RELEASED = "released"
    ABORTED = "aborted"
    NO_ROOM_LEFT = "no_room_left"
    NOT_UNDERSTOOD = "not_understood"
    UNKNOWN_CALLED = "unknown_called"
    UNKNOWN_CALLING = "unknown_calling"
    TOO_MANY = "too_many"
    TOO_MANY_FROM_ADDRESS = "too_many_from_address"
    NO_SPACE = "no_space"
    TLS_FAILED = "tls_failed"


OUTCOME_WORDS = {
    Outcome.OPEN: "still connected",
    Outcome.RELEASED: "ended as it should",
    Outcome.ABORTED: "broken off by the sender or the network; what came was kept",
    Outcome.NO_ROOM_LEFT: "the disk became full; images were refused and must be sent again",
    Outcome.NOT_UNDERSTOOD: "some objects could not be understood and were refused",
    Outcome.UNKNOWN_CALLED: "refused: it called this box by another AE title; upper and lower case matter",
    Outcome.UNKNOWN_CALLING: "refused: its AE title is not in the settings; upper and lower case matter",
    Outcome.TOO_MANY: "refused: too many connections at once",
    Outcome.TOO_MANY_FROM_ADDRESS: "refused: too many connections at once from this address",
    Outcome.NO_SPACE: "refused: the disk is full",
    Outcome.TLS_FAILED: "refused: no encrypted connection, or no certificate of this box's authority",
}
"""English sentences, texts of the language packs."""


@dataclass(frozen=True, slots=True)
class RecentAssociation:
    """One association, or a request for one."""

    at: str
    """UTC, ISO 8601, when it was asked for."""
    calling_ae_title: str
    called_ae_title: str
    address: str
    images: int
    """Objects that were kept, repeats included."""
    refused: int
    """Objects that were not."""
    outcome: Outcome
    is_echo: bool = False
    """It only asked whether the box answers."""


def shown_title(title: str) -> str:
    """An AE title of whoever called, fit to be shown."""
    kept = "".join(one if one in _PRINTABLE else "?" for one in title.strip()[:_TITLE_LENGTH])
    return kept or "?"


def recent_associations(state: StateFolder) -> tuple[RecentAssociation, ...]:
    """The last associations, newest first; none where nothing was ever written."""
    with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
        data = state.associations_file.read_bytes()
        return msgspec.json.decode(data, type=tuple[RecentAssociation, ...])
    return ()


class RecentAssociations:
    """Keeps the last associations, those still open among them."""

    def __init__(self, state: StateFolder) -> None:
        """With what an earlier process wrote, of which nothing is open any more."""
        self._state = state
        known = reversed(recent_associations(state))
        ended = [one for one in known if one.outcome is not Outcome.OPEN]
        self._ended = deque(ended, maxlen=KEPT)
        self._written: tuple[RecentAssociation, ...] | None = None

    def add(self, ended: RecentAssociation) -> None:
        """One that has ended, or was refused; of the same refusal again and again the last is kept."""
        if ended.outcome not in (Outcome.RELEASED, Outcome.ABORTED):
            for other in [one for one in self._ended if replace(one, at=ended.at) == ended]:
                self._ended.remove(other)
        self._ended.append(ended)

    def write(self, still_open: Iterable[RecentAssociation]) -> None:
        """Put them where the page reads them; nothing where nothing changed.

        Raises:
            ResourceError: the disk is full.
        """
        newest = sorted((*self._ended, *still_open), key=lambda one: one.at, reverse=True)
        shown = tuple(newest[:KEPT])
        if shown != self._written:
            write_atomically(self._state.associations_file, dump_json(shown).encode())
            self._written = shown
