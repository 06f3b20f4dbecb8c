"""Taking objects in for one sender: into the spool, then into the worklist, a second's worth at once."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_medgemma.runtime.clinic.arrival_record import (
    note_sending,
    note_sent,
    read_arrival_record,
)
from edge_medgemma.runtime.clinic.arrivals.identity import is_media_directory
from edge_medgemma.runtime.clinic.arrivals.space import Space
from edge_medgemma.runtime.clinic.arrivals.spool import Arrival, Spool
from edge_medgemma.runtime.clinic.clock import is_clock_set
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import Doubt
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import ResourceError, ScanError

NODE_TIMEOUT_S = 5.0
"""The node tells the worklist twice a second what it received."""

NOTE_EVERY_S = 1.0
"""One commit of the worklist for what came meanwhile."""


@dataclass(slots=True)
class TakenStudy:
    """What of one study was taken in."""

    study_uid: str
    new: int = 0
    """Images that were not there."""
    repeated: int = 0
    """Images that were there already."""
    conflicting: int = 0
    """Of the new ones: another image with the same UIDs was there; both are kept."""
    aside: int = 0
    """Objects without anything to look at, and results of this program."""

    @property
    def images(self) -> int:
        """All that may be looked at."""
        return self.new + self.repeated


@dataclass(slots=True)
class Intake:
    """Takes objects in until the block of `with` ends; then the engine may look at their studies.

    One thread uses it. A block that is left by an exception says of its studies that something was
    broken off; what had been taken stays.
    """

    state: StateFolder
    settings: ClinicSettings
    sender: str
    """Calling AE title, `upload`, `folder` or `pull`."""
    studies: dict[str, TakenStudy] = field(default_factory=dict, init=False)
    """By study key, in order of their first object."""
    _unnoted: Counter[str] = field(default_factory=Counter, init=False)
    _killed: set[str] = field(default_factory=set, init=False)
    """Studies that an earlier intake of this sender began and never ended."""
    _broken: set[str] = field(default_factory=set, init=False)
    _conflicts: set[str] = field(default_factory=set, init=False)
    _has_lost: bool = field(default=False, init=False)
    _noted_at_s: float = field(default=0.0, init=False)
    _worklist: Worklist = field(init=False)

    def __enter__(self) -> Self:
        self.state.create()
        self._worklist = Worklist.open(self.state)
        self._noted_at_s = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.note()
            self._end(is_whole=kind is None)
        finally:
            self._worklist.close()

    @contextlib.contextmanager
    def receive(self, size_bytes: int = 0) -> Iterator[Path]:
        """A new path for one object, to be handed to `accept` inside the block.

        Raises:
            ResourceError: less than the reserve would be free; nothing is written.
        """
        if not Space(self.state, self.settings.node.reserve_gb).has_room(size_bytes):
            raise ResourceError(
                f"less than {self.settings.node.reserve_gb:g} GB are free for '{self.state.path}'; "
                "free some space, or lower node.reserve_gb in the settings"
            )
        with Spool(self.state).receive() as path:
            yield path

    def accept(self, temporary: Path) -> Arrival:
        """Take a complete file over; it is on the disk when this returns, in the worklist soon.

        Raises:
            ScanError: no DICOM, or without UIDs.
            ResourceError: no space, or no permission.
        """
        try:
            arrival = Spool(self.state).accept(temporary, self.sender)
        except ScanError:
            if not is_media_directory(temporary):
                self.lose()
            raise
        study = self.studies.setdefault(arrival.study_key, TakenStudy(arrival.study_uid))
        if arrival.is_aside:
            study.aside += 1
            return arrival
        if not study.images:
            self._begin(arrival.study_key)
        study.new += arrival.is_new
        study.repeated += not arrival.is_new
        study.conflicting += arrival.is_conflict
        self._unnoted[arrival.study_key] += arrival.is_new
        if arrival.is_conflict:
            self._conflicts.add(arrival.study_key)
        if time.monotonic() - self._noted_at_s >= NOTE_EVERY_S:
            self.note()
        return arrival

    def expect(self, key: str, images: int | None) -> None:
        """Say how many images an archive has of a study, and doubt it where fewer are here.

        Without any effect on a study that the worklist does not have yet.
        """
        self.note()
        row = self._worklist.study(key)
        if row is None or images is None:
            return
        self._worklist.set_expected(key, images)
        if row.instances < images:
            self._worklist.add_doubt(key, Doubt.FEWER_THAN_ARCHIVE)
        else:
            self._worklist.clear_doubt(key, Doubt.FEWER_THAN_ARCHIVE)

    def settle(self, key: str) -> int:
        """Images of a study in the spool, once the worklist knows of those that the node received."""
        self.note()
        deadline_s = time.monotonic() + NODE_TIMEOUT_S
        while True:
            here = len(Spool(self.state).files(key))
            row = self._worklist.study(key)
            is_noted = here <= (0 if row is None else row.instances)
            if is_noted or time.monotonic() > deadline_s:
                return here
            time.sleep(0.1)

    def lose(self) -> None:
        """Say that an object could not be taken: it may have been of any study of this intake."""
        self._has_lost = True

    def doubt(self, key: str) -> None:
        """Say of a study that something was broken off, although the block may end well."""
        self._broken.add(key)

    def note(self) -> None:
        """Tell the worklist of what has come since the last time."""
        for key, new in self._unnoted.items():
            doubts = [Doubt.CONFLICTING_COPIES] if key in self._conflicts else []
            if not is_clock_set():
                doubts.append(Doubt.CLOCK_NOT_SET)
            uid = self.studies[key].study_uid
            self._worklist.note_spooled(key, uid, self.sender, new, doubts)
        self._unnoted.clear()
        self._conflicts.clear()
        self._noted_at_s = time.monotonic()

    def _begin(self, key: str) -> None:
        """Put into the record of a study that it is being taken in: there it stays after a kill."""
        record = read_arrival_record(self.state, key)
        if record is not None and self.sender in record.sending:
            self._killed.add(key)
        note_sending(self.state, key, self.sender)

    def _end(self, *, is_whole: bool) -> None:
        """Let the engine look at what came; doubt what was broken off."""
        spool = Spool(self.state)
        for key, study in self.studies.items():
            if not study.images:
                continue
            if not is_whole or self._has_lost or key in self._broken:
                self._worklist.add_doubt(key, Doubt.ABORTED)
            elif study.images >= len(spool.files(key)):  # all that ever came, and to its end
                self._worklist.clear_doubt(key, Doubt.ABORTED)
                if key in self._killed:
                    self._worklist.recount(key)
            note_sent(self.state, key, self.sender)
            self._worklist.set_waiting(key)
