"""Zip and tar archives and gzipped files unpacked into a private folder, bounded, before they are read.

Members get numbers for names, so that no name of an archive is ever a path here. The folder can be
read by its owner alone and goes when the process ends, also by Ctrl-C; after a kill it is swept by
the next one.
"""

import lzma
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.slicing.files.budget import ArchiveBudget, UnpackBudget
from edge_medgemma.runtime.slicing.files.discovery import (
    GZIP_MAGIC,
    Entry,
    FileKind,
    UnreadableFileError,
    open_regular,
)
from edge_medgemma.runtime.slicing.files.gunzip import Gunzip
from edge_medgemma.runtime.slicing.files.inflate import CHUNK_BYTES
from edge_medgemma.runtime.slicing.files.limits import MAX_FILE_BYTES
from edge_medgemma.runtime.slicing.files.members import DAMAGED, Member, MemberError
from edge_medgemma.runtime.slicing.files.tar_members import TarDamageError, tar_members
from edge_medgemma.runtime.slicing.files.unpack_folder import new_folder, no_room
from edge_medgemma.runtime.slicing.files.zip_members import zip_members

MAX_NAME_LETTERS = 300
"""Of a member's name as it is listed; a header may hold a megabyte."""

_DAMAGE = (
    zipfile.BadZipFile, TarDamageError, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError,
    ValueError, LookupError, NotImplementedError, RuntimeError,
)  # fmt: skip
"""Exceptions of the readers when they meet damage."""


def unpack(path: Path, kind: FileKind, shown: str, budget: UnpackBudget) -> list[Entry]:
    """Unpack the regular files of an archive; entries for them and for what was left out.

    `shown` is the archive's own name in lists of skipped files.

    Raises:
        UnreadableFileError: not an archive, empty, or beyond the limits; nothing of it stays.
        ResourceError: no room for the files.
    """
    entries: list[Entry] = []
    with open_regular(path) as file:
        own_budget = ArchiveBudget(budget, os.fstat(file.fileno()).st_size)
        folder = new_folder()
        try:
            for number, member in enumerate(_members(file, kind, own_budget)):
                own_budget.take_file()
                if entry := _unpacked(member, folder / f"{number:06d}", shown):
                    entries.append(entry)
        except (UnreadableFileError, ResourceError):
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except _DAMAGE as error:
            if not entries:
                raise UnreadableFileError("damaged archive") from error
            entries.append(
                Entry(path, shown, "damaged archive: only what stands before the damage")
            )
    if not entries:
        raise UnreadableFileError("archive without any file")
    own_budget.keep_files()
    return entries


def _members(file: BinaryIO, kind: FileKind, budget: ArchiveBudget) -> Iterator[Member]:
    if kind is FileKind.ZIP:
        return zip_members(file, budget)
    is_gzipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    file.seek(0)
    if kind is FileKind.GZIP:
        return iter([Member("", _chunks(Gunzip(file, budget.take_bytes)))])
    return tar_members(
        Gunzip(file, budget.take_bytes) if is_gzipped else file, budget, is_charged=is_gzipped
    )


def _chunks(stream: Gunzip) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk


def _unpacked(member: Member, target: Path, shown: str) -> Entry | None:
    """None for a folder."""
    reason = member.reason
    if member.content is not None:
        reason = _copy(member.content, target)
    elif reason is None:
        return None
    name = f"{shown}/{member.name[:MAX_NAME_LETTERS]}" if member.name else shown
    return Entry(target, name, reason, is_unpacked=True)


def _copy(content: Iterator[bytes], target: Path) -> str | None:
    """Write one member; the reason if it is not all there.

    Raises:
        ResourceError: the disk is full.
    """
    size = 0
    try:
        with target.open("wb") as file:
            while (chunk := _next_chunk(content)) and size <= MAX_FILE_BYTES:
                size += len(chunk)
                file.write(chunk)
    except MemberError as error:
        return str(error)
    except OSError as error:
        raise no_room(error) from error
    if size > MAX_FILE_BYTES:
        return f"larger than {MAX_FILE_BYTES // 1024**3} GiB"
    return None if chunk is not None else DAMAGED


def _next_chunk(content: Iterator[bytes]) -> bytes | None:
    """Nothing at the end; None where the archive is damaged."""
    try:
        return next(content, b"")
    except _DAMAGE:
        return None
