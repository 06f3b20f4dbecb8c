"""`benchmark --json`: every figure for programs; `benchmark.schema.json` says what stands in it."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.profiling.baseline import SCHEMA_VERSION
from edge_medgemma.runtime.profiling.record import Benchmark, Row

SCHEMA_PATH = Path(__file__).with_name("benchmark.schema.json")

_DIGITS = 6
"""Significant ones: more than any clock here is good for."""


def write_benchmark_json(benchmark: Benchmark, path: Path) -> None:
    """Write the benchmark; readers see the old file or the whole new one.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    write_atomically(path, dump_benchmark(benchmark).encode())


def dump_benchmark(benchmark: Benchmark) -> str:
    """The benchmark as JSON text that follows `benchmark.schema.json`, ending in a newline."""
    document = {
        "schema_version": SCHEMA_VERSION,
        **asdict(benchmark),
        "rows": [_row(row) for row in benchmark.rows],
    }
    return json.dumps(_plain(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _row(row: Row) -> dict[str, Any]:
    latency = row.latency
    document = asdict(row)
    document["reason"] = row.reason or None
    if latency is not None:
        document["latency"]["noise_band"] = latency.noise_band
    document["is_disturbed"] = row.is_disturbed
    document["rate_per_s"] = row.rate
    document["work_per_joule"] = row.work_per_joule
    return document


def _plain(value: Any) -> Any:
    """JSON has no NaN: what is not finite is null; digits beyond the clock's are dropped."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
