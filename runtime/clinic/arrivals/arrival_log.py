"""What the threads of associations tell the one thread that writes the worklist."""

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from edge_medgemma.runtime.clinic.arrivals.identity import Plane
from edge_medgemma.runtime.clinic.arrivals.recent import Outcome, RecentAssociation, shown_title
from edge_medgemma.runtime.clinic.arrivals.spool import Arrival


@dataclass(slots=True)
class OpenAssociation:
    """An association while it lasts."""

    at: str
    calling_ae_title: str
    called_ae_title: str
    address: str
    is_echo: bool
    is_report: bool = False
    """An archive tells what it keeps of results; shown to nobody as a call."""
    images: int = 0
    refused: int = 0
    problem: Outcome | None = None
    """What refused the last object that was refused."""
    series: dict[str, set[str]] = field(default_factory=dict)
    """Study key -> UIDs of the series of which it brought objects."""
    new_images: dict[str, int] = field(default_factory=dict)
    """Study key -> images that were not there before."""
    last: dict[str, str] = field(default_factory=dict)
    """Study key -> series of the last object."""

    def shown(self, outcome: Outcome) -> RecentAssociation:
        """Itself in plain data."""
        return RecentAssociation(
            at=self.at,
            calling_ae_title=self.calling_ae_title,
            called_ae_title=self.called_ae_title,
            address=self.address,
            images=self.images,
            refused=self.refused,
            outcome=outcome,
            is_echo=self.is_echo and not self.images,
        )


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an image belongs."""

    series_uid: str
    plane: Plane | None
    is_secondary: bool = False
    """A secondary capture: a picture of a picture, or of a page."""


def arrival_place(arrival: Arrival) -> Placed:
    """Where what arrived belongs."""
    return Placed(arrival.series_uid, arrival.plane, arrival.is_secondary)


@dataclass(slots=True)
class Batch:
    """Objects of one study from one sender that the worklist has not heard of."""

    study_key: str
    study_uid: str
    sender: str
    new_images: int = 0
    conflicts: int = 0
    placed: dict[str, Placed] = field(default_factory=dict)
    """File name -> series and place, of new images."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An association that is over."""

    association: OpenAssociation
    is_released: bool


class ArrivalLog:
    """Filled by many threads, emptied by one."""

    def __init__(self) -> None:
        """Empty."""
        self._lock = threading.Lock()
        self._open: dict[Hashable, OpenAssociation] = {}
        self._batches: dict[tuple[str, str], Batch] = {}
        self._ended: list[Ended] = []
        self._refused: list[RecentAssociation] = []

    def refuse(self, calling: str, called: str, address: str, outcome: Outcome) -> None:
        """A request that was not let in."""
        request = _association(calling, called, address, is_echo=False)
        with self._lock:
            self._refused.append(request.shown(outcome))

    def begin(
        self,
        association: Hashable,
        calling: str,
        called: str,
        address: str,
        *,
        is_echo: bool,
        is_report: bool = False,
    ) -> None:
        """An association that was let in."""
        opened = _association(calling, called, address, is_echo=is_echo)
        opened.is_report = is_report
        with self._lock:
            self._open[association] = opened

    def open_count(self, address: str | None = None) -> int:
        """Associations that are open, of one address or of all."""
        with self._lock:
            return sum(address in (None, one.address) for one in self._open.values())

    def note(self, association: Hashable, arrival: Arrival) -> bool:
        """An object is in the spool; whether it is the association's first of this study."""
        with self._lock:
            note = self._open.get(association)
            is_first = note is not None and arrival.study_key not in note.series
            if note is not None:
                note.images += 1
                if not arrival.is_aside:
                    note.series.setdefault(arrival.study_key, set()).add(arrival.series_uid)
                    note.last[arrival.study_key] = arrival.series_uid
                    known = note.new_images.get(arrival.study_key, 0)
                    note.new_images[arrival.study_key] = known + arrival.is_new
            if arrival.is_new and not arrival.is_aside:
                self._add(arrival)
            return is_first and not arrival.is_aside

    def note_refused(self, association: Hashable, problem: Outcome) -> None:
        """An object was not kept."""
        with self._lock:
            note = self._open.get(association)
            if note is not None:
                note.refused += 1
                note.problem = problem

    def end(self, association: Hashable, *, is_released: bool) -> None:
        """An association is over."""
        with self._lock:
            note = self._open.pop(association, None)
            if note is not None:
                self._ended.append(Ended(note, is_released))

    def open_handles(self) -> tuple[Hashable, ...]:
        """What `begin` was given, of associations that are open."""
        with self._lock:
            return tuple(self._open)

    def shown_open(self) -> tuple[RecentAssociation, ...]:
        """Open associations in plain data."""
        with self._lock:
            calls = [one for one in self._open.values() if not one.is_report]
            return tuple(one.shown(Outcome.OPEN) for one in calls)

    def open_senders(self, study_key: str) -> tuple[str, ...]:
        """AE titles with an open association that brought objects of a study."""
        with self._lock:
            return tuple(
                one.calling_ae_title for one in self._open.values() if study_key in one.series
            )

    def open_with_new(self, study_key: str) -> int:
        """Open associations that brought images of a study which were not there before."""
        with self._lock:
            return sum(one.new_images.get(study_key, 0) > 0 for one in self._open.values())

    def take(self) -> tuple[tuple[Batch, ...], tuple[Ended, ...], tuple[RecentAssociation, ...]]:
        """Batches, ended associations and refusals since the last call."""
        with self._lock:
            taken = tuple(self._batches.values()), tuple(self._ended), tuple(self._refused)
            self._batches, self._ended, self._refused = {}, [], []
            return taken

    def _add(self, arrival: Arrival) -> None:
        key = (arrival.study_key, arrival.sender)
        batch = self._batches.setdefault(
            key, Batch(arrival.study_key, arrival.study_uid, arrival.sender)
        )
        batch.new_images += 1
        batch.conflicts += arrival.is_conflict
        batch.placed[arrival.name] = arrival_place(arrival)


def _association(calling: str, called: str, address: str, *, is_echo: bool) -> OpenAssociation:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return OpenAssociation(at, shown_title(calling), shown_title(called), address, is_echo)
