"""This run against an earlier one: which rows changed by more than chance."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_medgemma.runtime.errors import BaselineError
from edge_medgemma.runtime.profiling.record import QUIET_PACE, Benchmark, Row, agreement

SCHEMA_VERSION = 1
"""Of the JSON files that are read and written."""

SAME_PACE = 0.05
"""The machine at its best differs by less between runs, unless its clock or its host did."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row of both runs."""

    name: str
    old_s: float
    new_s: float
    band: float
    """The wider of the two runs' bands."""
    is_compared: bool
    is_disturbed: bool
    """The machine was not quiet in one of the runs."""
    reads_gb_per_s: tuple[float, float] | None
    """Pace of memory then and now; None where the row does not go with it, or a run did not tell."""

    @property
    def relative(self) -> float:
        """Of the median latency; 0.2 is a fifth slower."""
        return self.new_s / self.old_s - 1

    @property
    def verdict(self) -> str:
        """`slower` and `faster` only of rows that nobody disturbed, beyond band and pace together.

        `other pace`: the change may come from how fast all threads read memory in the two runs,
        which makes rows slower or faster by no more than it changed itself.
        """
        if not self.is_compared:
            return "not judged"
        if self.is_disturbed:
            return "disturbed"
        pace = agreement(*self.reads_gb_per_s) if self.reads_gb_per_s else 1.0
        # 1 / (1 + band): as much faster as `slower` is slower.
        if self._is_beyond((1 + self.band) / pace):
            return "slower" if self.relative > 0 else "faster"
        return "other pace" if pace < QUIET_PACE or self._is_beyond(1 + self.band) else "same"

    def _is_beyond(self, factor: float) -> bool:
        return not 1 / factor <= self.new_s / self.old_s <= factor


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows that both runs measured."""

    changes: tuple[Change, ...]
    missing: tuple[str, ...]
    """Rows that only one of the runs measured."""
    differences: tuple[str, ...]
    """What differs beside the build: a comparison across these says little."""

    @property
    def slower(self) -> tuple[Change, ...]:
        """The regressions."""
        return tuple(change for change in self.changes if change.verdict == "slower")


def load_baseline(path: Path) -> dict[str, Any]:
    """The JSON of an earlier run.

    Raises:
        BaselineError: missing, not a benchmark, or of another schema version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document["schema_version"]
        has_rows = all(isinstance(row["name"], str) for row in document["rows"])
    except OSError as error:
        raise BaselineError(f"baseline '{path}' cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        version, has_rows = None, False
    if version != SCHEMA_VERSION or not has_rows:
        raise BaselineError(
            f"'{path}' is no benchmark of schema version {SCHEMA_VERSION}; expected a file that "
            "'edge-medgemma benchmark --json' wrote"
        )
    baseline: dict[str, Any] = document
    return baseline


def compare(baseline: Mapping[str, Any], benchmark: Benchmark) -> Comparison:
    """Every row of the benchmark against the row of the same name and work.

    Raises:
        BaselineError: a row of the baseline lacks a figure.
    """
    old = {row["name"]: row for row in baseline["rows"] if row.get("latency")}
    new = {row.name: row for row in benchmark.rows if row.latency}
    try:
        changes = tuple(_change(old[name], row) for name, row in new.items() if name in old)
        differences = tuple(_differences(baseline, benchmark))
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise BaselineError(f"the baseline lacks a figure ({error}); measure it again") from None
    missing = tuple(sorted(old.keys() ^ new.keys()))
    return Comparison(changes, missing, differences)


def _change(old: Mapping[str, Any], new: Row) -> Change:
    assert new.latency is not None
    return Change(
        name=new.name,
        old_s=float(old["latency"]["median_s"]),
        new_s=new.latency.median_s,
        band=max(float(old["latency"]["noise_band"]), new.latency.noise_band),
        is_compared=new.is_compared,
        is_disturbed=new.is_disturbed or bool(old["is_disturbed"]),
        reads_gb_per_s=_reads_gb_per_s(old.get("read_gb_per_s"), new.read_gb_per_s),
    )


def _reads_gb_per_s(old: float | None, new: float | None) -> tuple[float, float] | None:
    """Runs of earlier versions did not tell; their bands are wide instead."""
    return None if old is None or new is None else (float(old), new)


def _differences(baseline: Mapping[str, Any], benchmark: Benchmark) -> list[str]:
    pairs = {
        "engine": (baseline["engine"]["manifest_sha256"], benchmark.engine.manifest_sha256),
        "processor": (baseline["machine"]["processor"], benchmark.machine.processor),
        "power mode": (baseline["machine"]["power_mode"], benchmark.machine.power_mode),
        "libraries": (baseline["machine"]["libraries"], dict(benchmark.machine.libraries)),
        "threads": (baseline["settings"]["threads"], benchmark.settings.threads),
        "providers": (baseline["settings"]["providers"], dict(benchmark.settings.providers)),
    }
    differences = [name for name, (old, new) in pairs.items() if old != new]
    pace = float(baseline["probe_s"]) / benchmark.probe_s
    if abs(pace - 1) > SAME_PACE:
        differences.append(f"speed of the machine ({pace - 1:+.0%})")
    return differences
