"""What an engine has read, kept on disk: image features of slices and whole prefixes.

Names and contents hold no name, identifier, date or path: keys are hashes, contents are arrays. But
features are derived from a patient's pixels, so only the user can read them (mode 0600 in 0700).

A file is absent or whole: it is written under a temporary name and renamed, and its SHA-256 is
compared before anything of it is used. What does not match is deleted and computed again.
"""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import EdgeMedgemmaError, ResourceError
from edge_medgemma.runtime.files import new_file, remove_abandoned
from edge_medgemma.runtime.store.array_file import (
    Label,
    file_bytes,
    open_arrays,
    read_label,
    write_arrays,
)

DEFAULT_LIMIT_BYTES = 4 * 10**9
"""By its shapes, a CT of 85 slices takes 1.5 GB with a 4B engine and a float32 cache."""

MINIMUM_FREE_BYTES = 10**9
"""Left free on the disk, whatever the limit: others write to it too."""

UNFINISHED = "unfinished"
"""Kind of what a writer left that was killed, or is still at work."""

_Taken = TypeVar("_Taken")


class Kind(StrEnum):
    """What a file holds."""

    FEATURES = "features"
    """Image tokens of one slice."""
    PREFIX = "prefix"
    """Keys and values of everything ahead of a question."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One file of the cache."""

    path: Path
    kind: str
    """Suffix of its name, or UNFINISHED."""
    bytes: int
    unused_s: float
    """Since it was last written or read."""

    def read_engine_sha256(self) -> str:
        """The engine it is of, as the file says; empty where it does not."""
        try:
            return read_label(self.path).engine_sha256
        except (OSError, ValueError):
            return ""


class ScanCache:
    """Arrays by kind and key in one folder, the least recently used deleted at the limit."""

    def __init__(self, folder: Path | None = None, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """Use `folder`, by default `scans` in the user's cache folder; it need not exist."""
        self._folder = folder or platformdirs.user_cache_path("edge-medgemma") / "scans"
        self._limit_bytes = limit_bytes
        self.write_error = ""
        """Why nothing more is written, in words for the user; empty while all is well."""

    def holds(self, kind: Kind, key: str) -> bool:
        """Is there such a file? It may still turn out to be damaged."""
        return self._path(kind, key).is_file()

    def read(
        self,
        kind: Kind,
        key: str,
        engine_sha256: str,
        take: Callable[[Iterator[NDArray[Any]]], _Taken],
    ) -> _Taken | None:
        """What `take` makes of the stored arrays.

        None where there are none, where they are cut short or altered, or where `take` raises a
        ValueError because they do not fit; such a file is deleted.
        """
        path = self._path(kind, key)
        try:
            with open_arrays(path, Label(kind, key, engine_sha256)) as arrays:
                taken = take(arrays)
            with contextlib.suppress(OSError):
                os.utime(path)
        except EdgeMedgemmaError:
            raise  # what failed is the engine, not the file
        except OSError:
            return None
        except ValueError:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return taken

    def write(
        self, kind: Kind, key: str, engine_sha256: str, arrays: Sequence[NDArray[Any]]
    ) -> None:
        """Keep arrays; where that fails, `trouble` says why and no more is tried."""
        label = Label(kind, key, engine_sha256)
        size = file_bytes(label, arrays)
        if self.write_error or size > self._limit_bytes:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            self._make_room(size)
            if shutil.disk_usage(self._folder).free < size + MINIMUM_FREE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with new_file(self._path(kind, key), mode=0o600) as file:
                write_arrays(file, label, arrays)
            self._make_room(0)  # another process may have written as well
        except OSError as error:
            cause = error.__cause__ if isinstance(error, ResourceError) else error
            reason = getattr(cause, "strerror", None) or "unknown reason"
            self.write_error = f"the scan is not kept for later questions: {reason} (scan cache)"

    def entries(self) -> list[CacheEntry]:
        """All files, the least recently used first."""
        return cache_entries(self._folder)

    def clear(self, unused_for_s: float = 0.0) -> list[CacheEntry]:
        """Delete what was not used for so long, and what killed writers left; gives what went."""
        return delete_unused(self.entries(), unused_for_s)

    def _make_room(self, size: int) -> None:
        """Delete leftovers, then the least recently used files until `size` more bytes fit."""
        entries = self.entries()
        leftovers = {e.path for e in entries if e.kind == UNFINISHED and remove_abandoned(e.path)}
        entries = [entry for entry in entries if entry.path not in leftovers]
        total = size + sum(entry.bytes for entry in entries)
        for entry in entries:
            if total > self._limit_bytes and entry.kind != UNFINISHED and _remove(entry.path):
                total -= entry.bytes

    def _path(self, kind: Kind, key: str) -> Path:
        return self._folder / f"{key}.{kind}"


def cache_entries(folder: Path) -> list[CacheEntry]:
    """The files of a cache folder by their names, the least recently used first."""
    entries = []
    now = time.time()
    try:
        paths = list(folder.iterdir())
    except OSError:
        return []
    for path in paths:
        kind = UNFINISHED if path.name.startswith(".") else path.suffix[1:]
        with contextlib.suppress(OSError):  # another process may have deleted it
            status = path.stat()
            unused_s = max(0.0, now - status.st_mtime)
            entries.append(CacheEntry(path, kind, status.st_size, unused_s))
    return sorted(entries, key=lambda entry: -entry.unused_s)


def delete_unused(entries: Sequence[CacheEntry], unused_for_s: float) -> list[CacheEntry]:
    """Delete what was not used for so long, and what killed writers left; gives what went."""
    return [
        entry
        for entry in entries
        if (
            remove_abandoned(entry.path)
            if entry.kind == UNFINISHED
            else entry.unused_s >= unused_for_s and _remove(entry.path)
        )
    ]


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
