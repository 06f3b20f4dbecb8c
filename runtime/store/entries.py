"""Files and folders of one cache place: listed and deleted by age."""

import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.files import remove_abandoned

UNFINISHED = "unfinished"
"""Kind of an entry whose writer was killed or is still at work."""

ABANDONED_AFTER_S = 3600.0
"""Seconds after which an unfinished folder that nobody writes to has lost its writer."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A file, or a folder that is used as a whole."""

    path: Path
    num_files: int
    bytes: int
    unused_s: float
    """Seconds since any file of it was written or, in the scan cache, read."""

    @property
    def kind(self) -> str:
        """Suffix of its name without the dot, or UNFINISHED."""
        return UNFINISHED if self.path.name.startswith(".") else self.path.suffix[1:]


def cache_entries(folder: Path) -> list[CacheEntry]:
    """Entries of a folder, the least recently used first; empty where there is no such folder."""
    now = time.time()
    entries = []
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):  # another process may have deleted it
                entries.append(_entry(path, now))
    return sorted(entries, key=lambda entry: -entry.unused_s)


def delete_unused(entries: Sequence[CacheEntry], unused_for_s: float = 0.0) -> list[CacheEntry]:
    """Delete entries that were not used for so long, and what killed writers left; returns them."""
    return [entry for entry in entries if _is_deletable(entry, unused_for_s) and delete(entry)]


def delete(entry: CacheEntry) -> bool:
    """Delete an entry; False where that is refused, or where a file's writer is still at work."""
    if entry.path.is_dir():
        shutil.rmtree(entry.path, ignore_errors=True)
        return not entry.path.exists()
    if entry.kind == UNFINISHED:
        return remove_abandoned(entry.path)
    try:
        entry.path.unlink()
    except OSError:
        return False
    return True


def _is_deletable(entry: CacheEntry, unused_for_s: float) -> bool:
    if entry.kind == UNFINISHED:
        return not entry.path.is_dir() or entry.unused_s >= ABANDONED_AFTER_S
    return entry.unused_s >= unused_for_s


def _entry(path: Path, now: float) -> CacheEntry:
    stats = [path.stat()]
    num_files = 1
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        num_files = len(files)
        stats = [file.stat() for file in files] or stats
    unused_s = max(0.0, now - max(stat.st_mtime for stat in stats))
    return CacheEntry(path, num_files, sum(stat.st_size for stat in stats), unused_s)
