"""Uploads of people's browsers: many files each, in any order, each of which may be broken off."""

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from edge_medgemma.runtime.clinic.arrivals.intake import Intake
from edge_medgemma.runtime.clinic.page.api.incoming_file import IncomingFile
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import QuestionError, ResourceError, ScanError

SENDER = "upload"
MOST_UPLOADS = 16
MOST_OF_ONE_VISITOR = 4
MOST_FILES = 50_000
IDLE_S = 300.0
"""An upload that nobody goes on with is ended: what came is looked at, and doubted."""

WATCH_S = 10.0

TOO_MANY = "Too many uploads are under way. Finish one, or wait."


class BrokenOffError(Exception):
    """An upload that ended without being finished."""


@dataclass(frozen=True, slots=True)
class FileState:
    """How far one file is."""

    received_bytes: int
    is_complete: bool
    images: int = 0
    """Objects of it that were taken: one, or those of an archive."""
    refused: int = 0
    """Files of it that were not: no DICOM, or damaged."""


@dataclass(frozen=True, slots=True)
class UploadedStudy:
    """A study of an upload."""

    key: str
    images: int


@dataclass(frozen=True, slots=True)
class UploadResult:
    """What an upload brought."""

    studies: tuple[UploadedStudy, ...]
    duplicates: int
    """Images that were there already."""
    refused: int


@dataclass(slots=True)
class Upload:
    """One upload. Its functions block, one at a time: call them in a thread."""

    visitor: str
    intake: Intake
    used_s: float
    files: dict[int, IncomingFile | FileState] = field(default_factory=dict)
    """Files that are coming, and what became of those that came."""
    busy: set[int] = field(default_factory=set)
    """Files that a request writes at this moment."""
    is_ended: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def state(self, number: int) -> FileState:
        """Of a file that may not have begun."""
        found = self.files.get(number)
        if isinstance(found, FileState):
            return found
        return FileState(0 if found is None else found.received, is_complete=False)

    def begin_file(self, number: int, size_bytes: int) -> None:
        """Begin a file, or begin it anew.

        Raises:
            ScanError: too many files, or the upload has ended.
            ResourceError: there is no room.
        """
        with self._lock:
            if self.is_ended or len(self.files) >= MOST_FILES:
                raise ScanError("The upload has ended, or has too many files. Begin a new one.")
            before = self.files.pop(number, None)
            if isinstance(before, IncomingFile):
                before.discard()
            self.files[number] = IncomingFile(self.intake, size_bytes)

    def append(self, number: int, data: bytes) -> None:
        """Add bytes to a file that has begun.

        Raises:
            ScanError: the upload has ended.
            ResourceError: the disk is full.
        """
        found = self.files.get(number)
        if self.is_ended or not isinstance(found, IncomingFile):
            raise ScanError("The upload has ended. Begin a new one.")
        found.append(data)

    def complete(self, number: int) -> FileState:
        """Take a file that is whole.

        Raises:
            ResourceError: the disk is full; the file must be sent again.
        """
        with self._lock:
            found = self.files.get(number)
            if self.is_ended or not isinstance(found, IncomingFile):
                raise ScanError("The upload has ended. Begin a new one.")
            size = found.received
            try:
                images, refused = found.take()
            except ResourceError:
                del self.files[number]
                raise
            state = FileState(size, is_complete=True, images=images, refused=refused)
            self.files[number] = state
            return state

    def end(self, *, is_whole: bool) -> UploadResult:
        """Let the engine look at what came; doubted unless it is whole."""
        with self._lock:
            self.is_ended = True
            for one in self.files.values():
                if isinstance(one, IncomingFile):
                    one.discard()
            error = None if is_whole else BrokenOffError()
            self.intake.__exit__(None if error is None else type(error), error, None)
        studies = self.intake.studies
        return UploadResult(
            tuple(UploadedStudy(key, one.images) for key, one in studies.items() if one.images),
            sum(one.repeated for one in studies.values()),
            sum(one.refused for one in self.files.values() if isinstance(one, FileState)),
        )


class Uploads:
    """All uploads of the page's process."""

    def __init__(
        self,
        state: StateFolder,
        settings: ClinicSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without any."""
        self._state = state
        self._settings = settings
        self._clock = clock
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.Lock()
        self._watcher: threading.Thread | None = None

    def begin(self, visitor: str) -> str:
        """Begin an upload; its id.

        Raises:
            QuestionError: too many are under way.
            ResourceError: the worklist cannot be opened.
        """
        self.end_idle()
        with self._lock:
            own = sum(one.visitor == visitor for one in self._uploads.values())
            if len(self._uploads) >= MOST_UPLOADS or own >= MOST_OF_ONE_VISITOR:
                raise QuestionError(TOO_MANY)
            intake = Intake(self._state, self._settings, SENDER)
            intake.__enter__()
            name = secrets.token_hex(16)
            self._uploads[name] = Upload(visitor, intake, self._clock())
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, daemon=True, name="uploads")
                self._watcher.start()
            return name

    def find(self, name: str, visitor: str) -> Upload | None:
        """An upload of this visitor; None where there is none."""
        found = self._uploads.get(name)
        if found is None or found.visitor != visitor:
            return None
        found.used_s = self._clock()
        return found

    def end(self, name: str, *, is_whole: bool) -> UploadResult:
        """End an upload that `find` gave."""
        with self._lock:
            upload = self._uploads.pop(name, None)
        if upload is None:
            raise ScanError("The upload has ended.")
        return upload.end(is_whole=is_whole)

    def end_idle(self) -> None:
        """End what nobody goes on with."""
        now = self._clock()
        for name, upload in list(self._uploads.items()):
            if now - upload.used_s > IDLE_S and not upload.busy:
                with suppress(ScanError):
                    self.end(name, is_whole=False)

    def _watch(self) -> None:
        """While there are uploads: end those that nobody goes on with."""
        while True:
            time.sleep(WATCH_S)
            with suppress(ResourceError):
                self.end_idle()
            with self._lock:
                if not self._uploads:
                    self._watcher = None
                    return

    def close(self) -> None:
        """End all, as broken off: the page is told to stop."""
        for name in list(self._uploads):
            with suppress(ScanError, ResourceError):
                self.end(name, is_whole=False)
