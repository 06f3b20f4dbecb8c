"""Places on disk where runs leave files for later runs."""

from enum import StrEnum
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The user's cache folder; it need not exist."""
    return platformdirs.user_cache_path("edge-medgemma")


def data_folder() -> Path:
    """The user's folder of what must not be lost; it need not exist."""
    return platformdirs.user_data_path("edge-medgemma")


class Place(StrEnum):
    """A folder of the user's cache, named after what is in it."""

    SCANS = "scans"
    """Image features and prefixes, derived from patients' pixels, see `scan_cache`."""
    BASELINES = "blank-baselines"
    """Log-odds of findings on blank slices."""
    SELF_TESTS = "self-tests"
    """Numbers by which a library or device passed or failed its self-test."""
    TRIALS = "trials"
    """Whether kernels and libraries that may kill a process do so on this machine."""
    CHECKED = "checked-engines"
    """Stamps of engines whose files were hashed."""
    ENGINES = "synthetic-engines"
    """Engines with random weights that `benchmark --synthetic` measures."""
    BENCHMARKS = "benchmarks"
    """Scans and caches of a benchmark, gone at its end unless it was killed."""

    @property
    def folder(self) -> Path:
        """Its path; it need not exist."""
        return cache_folder() / self.value


def device_folder(engine_directory: Path) -> Path:
    """Folder of what was built from an engine for one device: TensorRT plans."""
    return engine_directory / "devices"
