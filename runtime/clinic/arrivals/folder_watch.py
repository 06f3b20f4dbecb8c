"""Folders into which other programs drop files: what has come to rest is taken."""

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_medgemma.runtime.clinic.arrivals.file_intake import (
    FOLDER,
    Skipped,
    entries_of,
    take_entry,
)
from edge_medgemma.runtime.clinic.arrivals.intake import Intake
from edge_medgemma.runtime.clinic.settings import ClinicSettings, TakenFiles, WatchedFolder
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import EdgeMedgemmaError
from edge_medgemma.runtime.slicing.files.budget import UnpackBudget
from edge_medgemma.runtime.slicing.files.discovery import Entry
from edge_medgemma.runtime.slicing.files.limits import MAX_FILES

_LOGGER = logging.getLogger(__name__)

TAKEN, NOT_TAKEN = "taken", "not_taken"
"""Folders in a watched one into which its files are moved; nothing in them is looked at."""

_TICK_S = 2.0
_LONGEST_WAIT_S = 60.0
"""What has come to rest waits no longer for files that have not."""

_Look = tuple[int, int]
"""Size in bytes and time of change in ns."""


@dataclass(slots=True)
class FolderWatch:
    """One watched folder; one thread uses it."""

    state: StateFolder
    settings: ClinicSettings
    folder: WatchedFolder
    clock_s: Callable[[], float] = time.monotonic
    _seen: dict[Path, tuple[_Look, float]] = field(default_factory=dict, init=False)
    """File -> how it looked, and since when."""
    _done: dict[Path, _Look] = field(default_factory=dict, init=False)
    """Files that are left where they are, as they looked when they were taken."""
    _problem: str = field(default="", init=False)

    def tick(self) -> None:
        """Take what has come to rest, unless there are other files that have just come."""
        root = Path(self.folder.path)
        if not root.is_dir():
            self._say("there is no watched folder of this path")
            return
        rested, is_all = self._rested(root)
        if not rested:
            return
        longest_s = max(self.clock_s() - self._seen[entry.path][1] for entry in rested)
        if is_all or longest_s >= self.folder.rest_s + _LONGEST_WAIT_S:
            try:
                self._take(root, rested)
                self._problem = ""
            except (EdgeMedgemmaError, OSError) as error:
                words = error.strerror if isinstance(error, OSError) else None
                self._say(words or str(error))

    def _rested(self, root: Path) -> tuple[list[Entry], bool]:
        """Files that have not changed for long enough, and whether there are no others."""
        now_s, is_all = self.clock_s(), True
        rested: list[Entry] = []
        seen: dict[Path, tuple[_Look, float]] = {}
        for entry, look in _files(root):
            if self._done.get(entry.path) == look:
                continue
            before = self._seen.get(entry.path)
            since_s = before[1] if before is not None and before[0] == look else now_s
            seen[entry.path] = (look, since_s)
            if now_s - since_s >= self.folder.rest_s:
                rested.append(entry)
            else:
                is_all = False
        self._seen = seen
        return rested, is_all

    def _take(self, root: Path, rested: list[Entry]) -> None:
        skipped, budget = Skipped(Counter()), UnpackBudget(MAX_FILES)
        with Intake(self.state, self.settings, FOLDER) as intake:
            for entry in rested:
                before = _taken_count(intake)
                waiting = [entry]
                while waiting:
                    waiting += take_entry(intake, waiting.pop(), skipped, budget)
                self._dispose(root, entry, is_taken=_taken_count(intake) > before)
        if skipped.reasons:
            _LOGGER.info("%d files of a watched folder hold no scan", skipped.reasons.total())

    def _dispose(self, root: Path, entry: Entry, *, is_taken: bool) -> None:
        """Move a file away, or remember that it is done with."""
        if self.folder.taken is TakenFiles.MOVE:
            target = root / (TAKEN if is_taken else NOT_TAKEN) / entry.path.relative_to(root)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(entry.path, target)
                return
            except OSError as error:
                self._say(f"its files cannot be moved: {error.strerror}")
        self._done[entry.path] = self._seen[entry.path][0]

    def _say(self, problem: str) -> None:
        """A line for the log, once; paths below the folder may hold names."""
        if problem != self._problem:
            _LOGGER.warning("watched folder '%s': %s", self.folder.path, problem)
        self._problem = problem


def watch_folders(state: StateFolder, settings: ClinicSettings, stop: threading.Event) -> None:
    """Watch the folders of the settings until `stop` is set."""
    watches = [FolderWatch(state, settings, folder) for folder in settings.watched_folders]
    while watches and not stop.wait(_TICK_S):
        for watch in watches:
            watch.tick()


def _files(root: Path) -> Iterator[tuple[Entry, _Look]]:
    """Regular files below a folder that are not done with, and how each looks."""
    for entry in entries_of(root):
        first = entry.shown.partition("/")[0]
        if entry.reason is None and first not in (TAKEN, NOT_TAKEN):
            try:
                status = entry.path.stat()
            except OSError:
                continue  # it was moved away
            yield entry, (status.st_size, status.st_mtime_ns)


def _taken_count(intake: Intake) -> int:
    return sum(study.images + study.aside for study in intake.studies.values())
