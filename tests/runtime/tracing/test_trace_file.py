"""The trace of a real run: what Perfetto opens, nested, and nothing counted twice."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from edge_medgemma.runtime.tracing.spans import Span
from edge_medgemma.runtime.tracing.trace_file import load_trace, nested, trace_events

SLICES = 3


@pytest.fixture(scope="module")
def trace_file(phantom_scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trace")
    arguments = ["triage", phantom_scan, "--no-cache", "--slices", SLICES]
    arguments += ["--out", folder, "--trace", folder / "t.json"]
    command = [sys.executable, "-m", "edge_medgemma", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "t.json"


def test_it_is_a_chrome_trace(trace_file: Path) -> None:
    events = json.loads(trace_file.read_text())["traceEvents"]
    assert {e["name"] for e in events if e["ph"] == "M"} == {"process_name", "thread_name"}
    for event in events:
        assert {"pid", "tid", "name"} <= event.keys()
        assert event["ph"] == "M" or (event["ts"] >= 0 and event["dur"] >= 0)


def test_spans_nest_and_follow_one_another(trace_file: Path) -> None:
    spans = load_trace(trace_file)
    root = spans[0]
    assert (root.name, root.depth) == ("command", 0)
    for i, span in enumerate(spans):
        parent = next((p for p in reversed(spans[:i]) if p.depth == span.depth - 1), root)
        assert span.stop_s <= parent.stop_s + 1e-9, f"{span} outlasts {parent}"
        before = next((s for s in reversed(spans[:i]) if s.depth <= span.depth), None)
        if before is not None and before.depth == span.depth:
            assert before.stop_s <= span.start_s + 1e-9, f"{before} overlaps {span}"


def test_every_stage_and_every_slice_is_there(trace_file: Path) -> None:
    names = [span.name for span in load_trace(trace_file)]
    stages = {"start", "open", "check files", "load vision", "load decoder", "write"}
    stages |= {"discover", "decode", "render", "vision", "resize", "prefill", "score", "report"}
    assert stages <= set(names)
    assert {f"vision {n + 1}" for n in range(SLICES)} <= set(names)
    assert {f"prefill {n + 1}" for n in range(SLICES + 1)} <= set(names)


def test_depth_is_found_from_time_alone() -> None:
    spans = [Span("b", 2.0, 1.0, 7), Span("a", 0.0, 5.0, 7), Span("c", 3.0, 1.0, 7)]
    assert [(s.name, s.depth) for s in nested(spans)] == [("a", 0), ("b", 1), ("c", 1)]


def test_rounding_never_makes_a_child_outlast_its_parent() -> None:
    spans = [Span("outer", 0.1, 0.5666666664, 0), Span("inner", 0.2, 0.4666666668, 1)]
    outer, inner = trace_events(spans, 0.0, 1.0)["traceEvents"][4:]
    ends_ns = [round((one["ts"] + one["dur"]) * 1e3) for one in (outer, inner)]
    assert ends_ns[1] <= ends_ns[0]


def test_touching_steps_are_siblings_to_the_nanosecond() -> None:
    begin = 12345.678901234567
    steps = [Span(f"step {i}", begin + i / 7, 1 / 7 + 1e-11, 1) for i in range(50)]
    around = Span("outer", begin, 50 / 7 + 1e-10, 0)
    spans = trace_events([around, *steps], begin - 1, begin + 9)["traceEvents"][5:]
    for one, following in pairwise(spans):
        assert round((one["ts"] + one["dur"]) * 1e3) <= round(following["ts"] * 1e3)
    assert {s.depth for s in nested([around, *steps])} == {0, 1}
