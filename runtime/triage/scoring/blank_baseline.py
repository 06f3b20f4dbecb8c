"""Blank baseline: log-odds of the same questions when every slice is blank.

Models answer yes to everything (https://github.com/Google-Health/medgemma/issues/18). The answers
depend on the engine, the questions and the number of slices, not on a patient, so they are cached.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import platformdirs

from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.slicing.volume import Modality, Volume
from edge_medgemma.runtime.store.scan_cache import CacheEntry, cache_entries, delete_unused

AIR_HU = -1024.0
"""Lowest value of the CT windows of the MedGemma preset."""

_CACHE_VERSION = 1


def blank_volume(volume: Volume) -> Volume:
    """One blank slice in the geometry of `volume`: air for CT, 0 for all else."""
    series = volume.series
    value = AIR_HU if series.modality is Modality.CT else 0.0
    array = np.full((1, *volume.array.shape[1:]), value, np.float32)
    return Volume(series, volume.slice_indices[:1], array, ())


class BaselineCache:
    """Baseline log-odds on disk; an entry that is missing or damaged is simply measured again."""

    def __init__(self, folder: Path | None = None) -> None:
        """Use `folder`, by default the user's cache folder."""
        self._folder = folder or platformdirs.user_cache_path("edge-medgemma") / "controls"

    def read(self, key: str, codes: frozenset[str]) -> dict[str, float] | None:
        """Log-odds per finding code; None unless exactly `codes` are there and finite."""
        try:
            entry = json.loads((self._folder / f"{key}.control").read_text(encoding="utf-8"))
            values = {str(code): float(value) for code, value in entry["log_odds"].items()}
            intact = entry["version"] == _CACHE_VERSION and entry["key"] == key
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        usable = intact and values.keys() == codes and all(map(math.isfinite, values.values()))
        return values if usable else None

    def write(self, key: str, log_odds: Mapping[str, float]) -> None:
        """Cache a finite entry; a full disk or a read-only home costs time, not the triage."""
        if not all(map(math.isfinite, log_odds.values())):
            return
        entry = {"version": _CACHE_VERSION, "key": key, "log_odds": dict(log_odds)}
        with contextlib.suppress(ResourceError):
            write_atomically(self._folder / f"{key}.control", json.dumps(entry).encode())

    def entries(self) -> list[CacheEntry]:
        """All files, the least recently written first."""
        return cache_entries(self._folder)

    def clear(self, unused_for_s: float = 0.0) -> list[CacheEntry]:
        """Delete entries not written for so long, and return them."""
        return delete_unused(self.entries(), unused_for_s)


def baseline_key(
    engine_sha256: str, protocol_sha256: str, preset: str, slices: int, shape: tuple[int, int]
) -> str:
    """Name of a cache entry: a hash of all that the baseline depends on.

    Args:
        engine_sha256: identity of the engine.
        protocol_sha256: identity of the questions.
        preset: intensity windows, as `windows.PRESETS` names them.
        slices: number of slices shown.
        shape: rows and columns of a slice.
    """
    parts = (engine_sha256, protocol_sha256, preset, str(slices), *map(str, shape))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
