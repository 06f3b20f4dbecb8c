"""Files of folders, archives and sticks on their way into the spool; each is copied as it is."""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_medgemma.runtime.clinic.arrivals.intake import Intake
from edge_medgemma.runtime.errors import ResourceError, ScanError
from edge_medgemma.runtime.slicing.files.archives import unpack
from edge_medgemma.runtime.slicing.files.budget import UnpackBudget
from edge_medgemma.runtime.slicing.files.discovery import (
    Entry,
    FileKind,
    UnreadableFileError,
    open_regular,
    sniff,
)
from edge_medgemma.runtime.slicing.files.limits import MAX_FILES
from edge_medgemma.runtime.slicing.files.unpack_folder import sweep_abandoned
from edge_medgemma.runtime.slicing.files.walk import walk_files

FOLDER = "folder"
"""Sender of what was no DICOM sender's."""

NIFTI_REASON = "NIfTI, which does not say whose scan it is"

_COPY_BYTES = 1024 * 1024

OnProgress = Callable[[int, int], None]
"""Called with files done and files known."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Files that were not taken, counted by reason; no name of a file is kept."""

    reasons: Counter[str] = field(default_factory=Counter)


def check_paths(paths: Sequence[Path]) -> None:
    """Refuse at once what can only be a mistake.

    Raises:
        ScanError: a path that is not there, or a NIfTI file.
    """
    for path in paths:
        if not path.exists():
            raise ScanError(f"'{path}' does not exist; name a folder, a DICOM file or an archive")
        if path.is_file() and _kind_or_none(path) is FileKind.NIFTI:
            raise ScanError(
                f"'{path}' is {NIFTI_REASON}; give the DICOM files, or look at it with "
                f"'edge-medgemma triage {path}'"
            )


def take_paths(
    intake: Intake, paths: Sequence[Path], on_progress: OnProgress | None = None
) -> Skipped:
    """Copy every DICOM file of folders, archives and single files into the spool.

    Raises:
        ScanError: as `check_paths`; nothing was taken.
        ResourceError: the disk is full; what had been taken stays.
    """
    check_paths(paths)
    sweep_abandoned()
    entries = [entry for path in paths for entry in entries_of(path)]
    skipped, budget = Skipped(), UnpackBudget(MAX_FILES)
    for done, entry in enumerate(entries, start=1):
        entries += take_entry(intake, entry, skipped, budget)
        if on_progress is not None:
            on_progress(done, len(entries))
    return skipped


def entries_of(path: Path) -> Iterator[Entry]:
    """Files below a folder, or the file itself."""
    return walk_files(path) if path.is_dir() else iter([Entry(path, path.name)])


def take_entry(intake: Intake, entry: Entry, skipped: Skipped, budget: UnpackBudget) -> list[Entry]:
    """Copy a DICOM file into the spool, count why it is left alone, or unpack it for what it holds.

    Raises:
        ResourceError: the disk is full.
    """
    try:
        if entry.reason is not None:
            raise UnreadableFileError(entry.reason)
        kind = sniff(entry.path)
        if kind is FileKind.NIFTI:
            raise UnreadableFileError(NIFTI_REASON)
        if kind is not FileKind.DICOM:
            return unpack(entry.path, kind, entry.shown, budget)
        _copy(intake, entry.path)
    except (UnreadableFileError, ScanError) as error:
        skipped.reasons[str(error).removeprefix("not kept: ")] += 1
    finally:
        if entry.is_unpacked:
            entry.path.unlink(missing_ok=True)
    return []


def _copy(intake: Intake, path: Path) -> None:
    with open_regular(path) as source:
        size = os.fstat(source.fileno()).st_size
        with intake.receive(size) as temporary:
            try:
                with temporary.open("xb") as target:
                    shutil.copyfileobj(source, target, _COPY_BYTES)
            except OSError as error:
                raise _copy_error(intake, error) from error
            intake.accept(temporary)


def _copy_error(intake: Intake, error: OSError) -> Exception:
    """Whose fault it is: a disk of ours that is full, or a stick that cannot be read."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        return ResourceError(f"could not write '{intake.state.spool}': {error.strerror}")
    intake.lose()
    return UnreadableFileError("cannot be read; copy the scan to another disk")


def _kind_or_none(path: Path) -> FileKind | None:
    try:
        return sniff(path)
    except UnreadableFileError:
        return None
