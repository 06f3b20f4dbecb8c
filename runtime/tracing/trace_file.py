"""Spans as a trace that chrome://tracing and ui.perfetto.dev open.

Trace Event Format (Google, docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU):
complete events, `"ph": "X"`, `ts` and `dur` in microseconds; events of one thread nest by time.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.tracing.spans import Span

PROCESS_NAME = "edge-medgemma"
ROOT_NAME = "command"

CLOCK_S = 1e-9
"""Spans that touch may seem to overlap by less: seconds are floating-point numbers."""

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
    spans = tuple(spans)
    first_s = min((span.start_s for span in spans), default=stop_s)
    root = Span(ROOT_NAME, start_s, stop_s - start_s, 0)
    start = Span("start", start_s, first_s - start_s, 0)
    return {
        "displayTimeUnit": "ms",
        "traceEvents": [
            _name("process_name", PROCESS_NAME),
            _name("thread_name", "main"),
            *_events(nested((root, start, *spans)), start_s),
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


def nested(spans: Iterable[Span]) -> list[Span]:
    """The spans in order of beginning, their depth as one surrounds the other in time."""
    open_until_s: list[float] = []
    found = []
    for span in sorted(spans, key=lambda span: (span.start_s, -span.duration_s)):
        while open_until_s and span.start_s + CLOCK_S >= open_until_s[-1]:
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


def _events(spans: Sequence[Span], origin_s: float) -> Iterator[dict[str, Any]]:
    """In whole nanoseconds, and so that no rounding makes two spans overlap that did not."""
    stops_ns: list[int] = []
    for span in spans:
        earlier_ns = stops_ns[span.depth] if span.depth < len(stops_ns) else 0
        del stops_ns[span.depth :]
        start_ns = max(round((span.start_s - origin_s) * 1e9), earlier_ns)
        stop_ns = min([round((span.stop_s - origin_s) * 1e9), *stops_ns[-1:]])
        stops_ns.append(max(start_ns, stop_ns))
        yield {
            "name": span.name,
            "cat": "edge-medgemma",
            "ph": "X",
            "ts": start_ns / 1e3,
            "dur": (stops_ns[-1] - start_ns) / 1e3,
            "pid": 1,
            "tid": 1,
        }


def _name(kind: str, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": 1, "tid": 1, "args": {"name": name}}
