"""Cache on disk of what an engine computed from a scan: image features of slices, whole prefixes.

Names and contents hold no name, identifier, date or path: keys are hashes, contents are arrays. But
features are derived from a patient's pixels, so only the user can read them (mode 0600 in 0700).

A file is absent or whole: it is written under a temporary name and renamed, and its SHA-256 is
compared before anything of it is used. What does not match is deleted and computed again.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from edge_medgemma.runtime.errors import EdgeMedgemmaError, ResourceError
from edge_medgemma.runtime.files import new_file
from edge_medgemma.runtime.store.array_file import Label, file_bytes, open_arrays, write_arrays
from edge_medgemma.runtime.store.entries import (
    UNFINISHED,
    CacheEntry,
    cache_entries,
    delete,
    delete_unused,
)
from edge_medgemma.runtime.store.ownership import make_own_folder, require_own_file
from edge_medgemma.runtime.store.places import Place

DEFAULT_LIMIT_BYTES = 4 * 10**9
"""By its shapes, a CT of 85 slices takes 1.5 GB with a 4B engine and a float32 cache."""

MINIMUM_FREE_BYTES = 10**9
"""Bytes left free on the disk, whatever the limit: others write to it too."""

_Loaded = TypeVar("_Loaded")


class Kind(StrEnum):
    """Contents of a file, and the suffix of its name."""

    FEATURES = "features"
    """Image features of one slice."""
    POOLED = "pooled"
    """Mean of the image tokens of one slice, which is compared with those of the calibration."""
    PREFIX = "prefix"
    """Keys and values of everything ahead of a question."""


class ScanCache:
    """Arrays by kind and key in one folder, the least recently used deleted at the limit."""

    def __init__(self, folder: Path | None = None, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """Use `folder`, by default that of `Place.SCANS`; it need not exist."""
        self._folder = folder or Place.SCANS.folder
        self._limit_bytes = limit_bytes
        self.write_error = ""
        """Why nothing more is written, in words for the user; empty while all is well."""

    def holds(self, kind: Kind, key: str) -> bool:
        """Whether there is such a file; it may still turn out to be damaged or another user's."""
        return self._path(kind, key).is_file()

    def read(
        self,
        kind: Kind,
        key: str,
        engine_sha256: str,
        load: Callable[[Iterator[NDArray[Any]]], _Loaded],
    ) -> _Loaded | None:
        """Result of `load` on the stored arrays.

        None where there are none, where others can write them, where they are cut short or altered,
        or where `load` raises a ValueError because they do not fit; the last are deleted.
        """
        path = self._path(kind, key)
        try:
            require_own_file(path)
            with open_arrays(path, Label(kind, key, engine_sha256)) as arrays:
                loaded = load(arrays)
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
        return loaded

    def write(
        self, kind: Kind, key: str, engine_sha256: str, arrays: Sequence[NDArray[Any]]
    ) -> None:
        """Keep arrays; where that fails, `write_error` says why and no more is tried."""
        label = Label(kind, key, engine_sha256)
        size = file_bytes(label, arrays)
        if self.write_error or size > self._limit_bytes:
            return
        try:
            make_own_folder(self._folder)
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

    def _make_room(self, size: int) -> None:
        """Delete leftovers, then the least recently used files until `size` more bytes fit."""
        entries = self.entries()
        leftovers = delete_unused([entry for entry in entries if entry.kind == UNFINISHED])
        entries = [entry for entry in entries if entry not in leftovers]
        total = size + sum(entry.bytes for entry in entries)
        for entry in entries:
            if total > self._limit_bytes and entry.kind != UNFINISHED and delete(entry):
                total -= entry.bytes

    def _path(self, kind: Kind, key: str) -> Path:
        return self._folder / f"{key}.{kind}"
