"""Numbers of self-tests that passed or failed here, kept in the user's cache folder."""

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.files import write_atomically

_STAMP_VERSION = 2


class CachedVerdict:
    """What one engine gave on one library and device."""

    def __init__(self, engine_sha256: str, identity: str) -> None:
        """`identity` is of the library, its version and the device."""
        parts = (str(_STAMP_VERSION), engine_sha256, identity)
        self._key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        folder = platformdirs.user_cache_path("edge-medgemma") / "self-tests"
        self._path: Path = folder / f"{self._key}.json"

    def read(self, *names: str) -> tuple[float, ...] | None:
        """The numbers of an intact stamp, in this order; anything else means to test again."""
        try:
            stamp = json.loads(self._path.read_text(encoding="utf-8"))
            if stamp["key"] != self._key:
                return None
            return tuple(float(stamp[name]) for name in names)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, numbers: Mapping[str, float]) -> None:
        """What is no number is not kept; a read-only home costs time, nothing else."""
        if not all(map(math.isfinite, numbers.values())):
            return
        with contextlib.suppress(ResourceError):
            write_atomically(self._path, json.dumps({"key": self._key, **numbers}).encode())
