"""The spool: every received object as one file, kept on the disk before its sender hears that it is."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.clinic.arrival_record import note_sender
from edge_medgemma.runtime.clinic.arrivals.identity import Identity, Plane, read_identity
from edge_medgemma.runtime.clinic.arrivals.incoming import new_path, sweep
from edge_medgemma.runtime.clinic.arrivals.sameness import is_same_object
from edge_medgemma.runtime.clinic.state_folder import STUDY_KEY, StateFolder, sync_folder
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.files import write_errors

SUFFIX = ".dcm"
_NAME_LENGTH = 40
"""Hexadecimal digits of a SHA-256: 160 bits."""


class OtherObjectError(ScanError):
    """An object that is not what its sender announced."""


@dataclass(frozen=True, slots=True)
class Announced:
    """What a C-STORE request says of the object that follows."""

    sop_class_uid: str
    sop_uid: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """One object that is in the spool now, or was already."""

    study_key: str
    study_uid: str
    series_uid: str
    is_new: bool
    """False for a repeat of what is there, which changes nothing."""
    is_conflict: bool
    """Another object with the same UIDs is there; both are kept."""
    is_aside: bool
    """Nothing to look at: SR, KO, PR, SEG, or a result of this program that came back."""
    sender: str
    name: str
    """Of its file in the study's folder."""
    plane: Plane | None
    """Where its slice lies, for what may be stacked."""
    is_secondary: bool = False
    """A secondary capture, kept with the images and not counted among them by archives."""


@dataclass(frozen=True, slots=True)
class Spool:
    """Received files below a state folder. Any number of threads and processes may use it at once."""

    state: StateFolder

    @contextlib.contextmanager
    def receive(self) -> Iterator[Path]:
        """A new path in `incoming`, deleted at the end of the block unless `accept` took it.

        Raises:
            ResourceError: the folder cannot be written.
        """
        with write_errors(self.state.incoming):
            path = new_path(self.state.incoming, SUFFIX)
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def accept(self, temporary: Path, sender: str, announced: Announced | None = None) -> Arrival:
        """Take over a complete file of `incoming`; all is on the disk when this returns.

        Args:
            temporary: on the file system of the spool; gone afterwards
            sender: calling AE title, `upload`, `folder` or `pull`
            announced: what the sender said it is

        Raises:
            ScanError: no DICOM, without UIDs, or another object than was announced.
            ResourceError: no space, or no permission; nothing changed.
        """
        identity = read_identity(temporary)
        if announced not in (None, Announced(identity.sop_class_uid, identity.sop_uid)):
            raise OtherObjectError("not kept: it is another object than its sender announced")
        study_key = self.state.study_key(identity.study_uid)
        is_aside = identity.is_own or not identity.is_image
        folder = (self.state.aside if is_aside else self.state.spool) / study_key
        with write_errors(folder):
            if not is_aside:
                note_sender(self.state, study_key, identity.study_uid, sender)
            _sync_file(temporary)
            _make_folder(folder)
            name, is_new, is_conflict = _place(temporary, folder, identity)
            sync_folder(folder)
        return Arrival(
            study_key=study_key,
            study_uid=identity.study_uid,
            series_uid=identity.series_uid,
            is_new=is_new,
            is_conflict=is_conflict,
            is_aside=is_aside,
            sender=sender,
            name=name,
            plane=identity.plane,
            is_secondary=identity.is_secondary,
        )

    def path_of(self, study_key: str, series_uid: str, sop_uid: str) -> Path | None:
        """File of one image; None where it is not there. Of conflicting copies, the first."""
        path = self.state.spool / study_key / f"{_name(series_uid, sop_uid)}{SUFFIX}"
        return path if path.exists() else None

    def files(self, study_key: str) -> tuple[Path, ...]:
        """Images of a study, ordered by name."""
        return _files(self.state.spool / study_key)

    def aside_files(self, study_key: str) -> tuple[Path, ...]:
        """What came with a study and is not looked at, ordered by name."""
        return _files(self.state.aside / study_key)

    def study_keys(self) -> tuple[str, ...]:
        """Studies that have a folder, ordered."""
        return tuple(sorted(filter(STUDY_KEY.fullmatch, os.listdir(self.state.spool))))

    def sweep(self) -> None:
        """Delete what was being received when a process ended; what is being received now stays."""
        with write_errors(self.state.incoming):
            sweep(self.state.incoming)


def _name(series_uid: str, sop_uid: str) -> str:
    """One object UID may come in two series: both are in the name (dcm4chee #4518)."""
    return hashlib.sha256(f"{series_uid}\0{sop_uid}".encode()).hexdigest()[:_NAME_LENGTH]


def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob(f"*{SUFFIX}")))


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _place(temporary: Path, folder: Path, identity: Identity) -> tuple[str, bool, bool]:
    """Name of the object in the study's folder, whether it is new, whether it conflicts."""
    stem = _name(identity.series_uid, identity.sop_uid)
    path = folder / f"{stem}{SUFFIX}"
    if _renamed(temporary, path):
        return path.name, True, False
    others = [path, *sorted(folder.glob(f"{stem}-*{SUFFIX}"))]
    for other in others:
        if is_same_object(temporary, other):
            temporary.unlink()
            return other.name, False, False
    copy = folder / f"{stem}-{secrets.token_hex(6)}{SUFFIX}"
    os.rename(temporary, copy)
    return copy.name, True, True


def _renamed(temporary: Path, path: Path) -> bool:
    """Give a file its name unless another has it; one of two at the same moment wins, none is lost."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        os.rename(temporary, path)
    else:
        temporary.unlink()
    return True
