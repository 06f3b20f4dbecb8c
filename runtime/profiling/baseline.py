"""This run against an earlier one: which rows changed by more than chance."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_medgemma.runtime.documents import dump_json, parse_document
from edge_medgemma.runtime.errors import BaselineError
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.profiling.record import SCHEMA_VERSION, Benchmark, Row


@dataclass(frozen=True, slots=True)
class Change:
    """One row of both runs."""

    name: str
    old_s: float
    new_s: float
    band: float
    """The wider of the two runs' noise bands."""

    @property
    def relative(self) -> float:
        """Change of the median latency; 0.2 is a fifth slower."""
        return self.new_s / self.old_s - 1

    @property
    def verdict(self) -> str:
        """`slower` or `faster` beyond the noise band, as much one way as the other; else `same`."""
        if self.new_s > self.old_s * (1 + self.band):
            return "slower"
        return "faster" if self.new_s < self.old_s / (1 + self.band) else "same"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows that both runs measured."""

    changes: tuple[Change, ...]
    missing: tuple[str, ...]
    """Rows that only one of the runs measured."""
    differences: tuple[str, ...]
    """Differences beside the build: a comparison across these says little."""

    @property
    def slower(self) -> tuple[Change, ...]:
        """The regressions."""
        return tuple(change for change in self.changes if change.verdict == "slower")


def write_benchmark(benchmark: Benchmark, path: Path) -> None:
    """Write a run as JSON; readers see the old file or the whole new one.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    write_atomically(path, dump_json(benchmark).encode())


def load_baseline(path: Path) -> Benchmark:
    """An earlier run.

    Raises:
        BaselineError: missing, not a benchmark, or of another schema version.
    """
    try:
        raw = msgspec.json.decode(path.read_bytes())
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if version != SCHEMA_VERSION:
            raise BaselineError(
                f"'{path}' is no benchmark of schema version {SCHEMA_VERSION}; expected a file "
                "that 'edge-medgemma benchmark --json' wrote"
            )
        return parse_document(raw, Benchmark)
    except OSError as error:
        raise BaselineError(f"baseline '{path}' cannot be read: {error.strerror}") from None
    except BaselineError:
        raise
    except ValueError as error:
        raise BaselineError(f"'{path}' is no benchmark ({error}); measure it again") from None


def compare(baseline: Benchmark, benchmark: Benchmark) -> Comparison:
    """Every row of the benchmark against the row of the same name."""
    old = {row.name: row for row in baseline.rows if row.latency}
    new = {row.name: row for row in benchmark.rows if row.latency}
    changes = tuple(_change(old[name], row) for name, row in new.items() if name in old)
    missing = tuple(sorted(old.keys() ^ new.keys()))
    return Comparison(changes, missing, _differences(baseline, benchmark))


def _change(old: Row, new: Row) -> Change:
    assert old.latency is not None and new.latency is not None
    band = max(old.latency.noise_band, new.latency.noise_band)
    return Change(new.name, old.latency.median_s, new.latency.median_s, band)


def _differences(baseline: Benchmark, benchmark: Benchmark) -> tuple[str, ...]:
    def facts(run: Benchmark) -> dict[str, object]:
        return {
            "engine": run.engine.manifest_sha256,
            "processor": run.machine.processor,
            "power mode": run.machine.power_mode,
            "libraries": run.machine.libraries,
            "threads": run.settings.threads,
            "providers": dict(run.settings.providers),
        }

    old, new = facts(baseline), facts(benchmark)
    return tuple(name for name in old if old[name] != new[name])
