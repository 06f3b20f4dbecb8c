"""Spans as a trace that chrome://tracing and ui.perfetto.dev open.

Trace Event Format (Google, docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU):
complete events, `"ph": "X"`, `ts` and `dur` in microseconds; events of one thread nest by time.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.profiling.spans import Span

PROCESS_NAME = "edge-medgemma"
ROOT_NAME = "command"

_STATUS_START_FIELD = 19
"""`starttime` of /proc/PID/stat, counted behind the parenthesis that ends the name; proc_pid_stat(5)."""


def write_trace(path: Path, spans: Iterable[Span]) -> None:
    """Write the spans of this process, from its start until now.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    text = json.dumps(trace_events(spans, process_start_s(), time.perf_counter()), indent=1)
    write_atomically(path, (text + "\n").encode())


def trace_events(spans: Iterable[Span], start_s: float, stop_s: float) -> dict[str, Any]:
    """The trace: one root event around all spans, `start` up to the first of them.

    Args:
        spans: of one thread, from any number of recorders, in any order; they nest in time.
        start_s: of the process, on the clock of `time.perf_counter`.
        stop_s: end of the root event.
    """
    ordered = sorted(spans, key=lambda span: (span.start_s, -span.duration_s))
    first_s = ordered[0].start_s if ordered else stop_s
    root = Span(ROOT_NAME, start_s, stop_s - start_s, 0)
    start = Span("start", start_s, first_s - start_s, 0)
    return {
        "displayTimeUnit": "ms",
        "traceEvents": [
            _name("process_name", PROCESS_NAME),
            _name("thread_name", "main"),
            *(_event(span, start_s) for span in (root, start, *ordered)),
        ],
    }


def load_trace(path: Path) -> list[Span]:
    """The spans of a trace file, the root first, depth as nested in time.

    Raises:
        OSError, ValueError, KeyError: the file is missing or no trace.
    """
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    flat = [
        Span(str(event["name"]), event["ts"] / 1e6, event["dur"] / 1e6, 0)
        for event in events
        if event["ph"] == "X"
    ]
    return nested(flat)


def nested(spans: Sequence[Span]) -> list[Span]:
    """The spans in order of beginning, their depth as one surrounds the other in time."""
    open_until_s: list[float] = []
    found = []
    for span in sorted(spans, key=lambda span: (span.start_s, -span.duration_s)):
        while open_until_s and span.start_s >= open_until_s[-1]:
            open_until_s.pop()
        found.append(Span(span.name, span.start_s, span.duration_s, len(open_until_s)))
        open_until_s.append(span.stop_s)
    return found


def process_start_s() -> float:
    """When this process was started, on the clock of `time.perf_counter`.

    Without /proc (macOS, Windows) it is the moment of the call: start-up is then unknown.
    """
    now_s = time.perf_counter()
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started_s = int(fields[_STATUS_START_FIELD]) / os.sysconf("SC_CLK_TCK")
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
    except (OSError, ValueError, IndexError, AttributeError):
        return now_s
    return now_s - max(age_s, 0.0)


def _event(span: Span, origin_s: float) -> dict[str, Any]:
    # Both ends are rounded, not the duration: a span must not outlast the one around it.
    start_us = round((span.start_s - origin_s) * 1e6, 3)
    stop_us = round((span.stop_s - origin_s) * 1e6, 3)
    duration_us = round(stop_us - start_us, 3)
    return {
        "name": span.name,
        "cat": "edge-medgemma",
        "ph": "X",
        "ts": start_us,
        "dur": duration_us,
        "pid": 1,
        "tid": 1,
    }


def _name(kind: str, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 1, "tid": 1, "args": {"name": name}}
