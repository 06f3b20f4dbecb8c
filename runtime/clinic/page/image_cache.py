"""Images made for the page, on disk and bounded; it may be deleted at any time."""

import contextlib
import os
import secrets
import shutil
import threading

from edge_medgemma.runtime.clinic.state_folder import STUDY_KEY, StateFolder

MAX_CACHE_BYTES = 2_000_000_000
"""About 350 studies of 100 slices in one window."""

LEAST_FREE_BYTES = 3_000_000_000
"""Space on the disk below which nothing is cached: receiving scans comes first."""


class ImageCache:
    """Files below `cache/page/<study key>/<stack>/<window>/`; the study seen longest ago goes first."""

    def __init__(
        self,
        state: StateFolder,
        max_bytes: int = MAX_CACHE_BYTES,
        least_free_bytes: int = LEAST_FREE_BYTES,
    ) -> None:
        """The cache of a state folder; those of studies that are gone are deleted."""
        self._root = state.cache / "page"
        self._spool = state.spool
        self._max_bytes = max_bytes
        self._least_free_bytes = least_free_bytes
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        """Study key to bytes, the one seen longest ago first."""
        self._sweep()

    def read(self, study_key: str, name: str) -> bytes | None:
        """A file, or None."""
        try:
            data = (self._root / study_key / name).read_bytes()
        except OSError:
            return None
        with self._lock:
            if study_key in self._sizes:
                self._sizes[study_key] = self._sizes.pop(study_key)
        return data

    def write(self, study_key: str, name: str, data: bytes) -> None:
        """Keep a file if there is room; a full disk only makes the page slower."""
        path = self._root / study_key / name
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free < self._least_free_bytes:
                return
            temporary = path.with_name(f".{secrets.token_hex(6)}")
            try:
                temporary.write_bytes(data)
                os.replace(temporary, path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            self._count(study_key, len(data))

    def _count(self, study_key: str, size: int) -> None:
        with self._lock:
            self._sizes[study_key] = self._sizes.pop(study_key, 0) + size
            while sum(self._sizes.values()) > self._max_bytes and len(self._sizes) > 1:
                oldest = next(iter(self._sizes))
                del self._sizes[oldest]
                shutil.rmtree(self._root / oldest, ignore_errors=True)

    def _sweep(self) -> None:
        """Count what an earlier run left, oldest first; drop what has no scan any more."""
        with contextlib.suppress(OSError):
            for folder in sorted(self._root.iterdir(), key=lambda path: path.stat().st_mtime):
                if not STUDY_KEY.fullmatch(folder.name) or not (self._spool / folder.name).is_dir():
                    shutil.rmtree(folder, ignore_errors=True)
                    continue
                files = (path for path in folder.rglob("*") if path.is_file())
                self._count(folder.name, sum(path.stat().st_size for path in files))
