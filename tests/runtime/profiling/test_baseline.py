"""What a baseline catches, and what it leaves alone."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.planted_slowdown import open_slow_vision
from support.sample_benchmark import component, sample_benchmark

from edge_medgemma.runtime.commands.benchmark_table import comparison_table
from edge_medgemma.runtime.errors import BaselineError
from edge_medgemma.runtime.generation import engine as engine_module
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.profiling.baseline import compare, load_baseline
from edge_medgemma.runtime.profiling.clock_probe import Pace
from edge_medgemma.runtime.profiling.component_rows import vision_row
from edge_medgemma.runtime.profiling.meter import Limits, Meter
from edge_medgemma.runtime.profiling.power import PowerReaders
from edge_medgemma.runtime.profiling.record import Benchmark, Row
from edge_medgemma.runtime.profiling.report.benchmark_json import (
    dump_benchmark,
    write_benchmark_json,
)
from edge_medgemma.runtime.profiling.roofline import Peaks

ATTEMPTS = 8
"""Of measuring while nobody disturbs."""

TIMED = "EDGE_MEDGEMMA_TIMED_TESTS"


def with_row(*rows: Row) -> Benchmark:
    return replace(sample_benchmark(), rows=rows)


def saved(benchmark: Benchmark) -> dict:
    return json.loads(dump_benchmark(benchmark))


def verdict(old: Row, new: Row) -> str:
    (change,) = compare(saved(with_row(old)), with_row(new)).changes
    return change.verdict


def test_a_run_against_itself_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    write_benchmark_json(sample_benchmark(), path)
    comparison = compare(load_baseline(path), sample_benchmark())
    assert {change.verdict for change in comparison.changes} == {"same"}
    assert comparison.slower == comparison.missing == comparison.differences == ()


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.2, "slower"), (1.05, "same"), (0.95, "same"), (0.8, "faster")]
)
def test_a_fifth_is_news_and_a_twentieth_is_not(factor: float, expected: str) -> None:
    old, new = component("ve1", 9.1, 1, "slice"), component("ve1", 9.1 * factor, 1, "slice")
    assert verdict(old, new) == expected


def test_rows_that_others_disturbed_are_not_judged() -> None:
    old, new = component("ve1", 9.1, 1, "slice"), component("ve1", 30.0, 1, "slice")
    assert verdict(replace(old, others_share=0.4), new) == "disturbed"
    assert verdict(old, replace(new, others_share=0.4)) == "disturbed"
    assert verdict(old, replace(new, pace=0.7)) == "disturbed"
    assert verdict(old, replace(new, others_share=0.01)) == "slower"
    assert verdict(old, replace(new, is_compared=False)) == "not judged"


def generation(median_s: float, read_gb_per_s: float | None) -> Row:
    return replace(component("tg128", median_s, 128, "token"), read_gb_per_s=read_gb_per_s)


@pytest.mark.parametrize(
    ("factor", "read_gb_per_s", "expected"),
    [
        (1.2, 64.0, "slower"),  # a fifth at the same pace
        (1.2, 60.0, "slower"),
        (0.8, 64.0, "faster"),
        (1.08, 60.0, "same"),
        (0.93, 60.0, "same"),
        (1.15, 58.0, "other pace"),  # band and pace together
        (0.87, 58.0, "other pace"),
        (1.35, 40.0, "other pace"),  # what generation was seen to lose
        (1.0, 40.0, "other pace"),  # perhaps a third faster
        (2.0, 40.0, "slower"),  # more than the pace can do
        (0.5, 40.0, "faster"),
    ],
)
def test_a_change_is_judged_at_one_pace_of_memory(
    factor: float, read_gb_per_s: float, expected: str
) -> None:
    assert verdict(generation(9.0, 64.0), generation(9.0 * factor, read_gb_per_s)) == expected


def test_the_table_says_which_paces_were_not_the_same() -> None:
    deep = replace(generation(9.0, 64.0), name="tg128@d8192")
    old, new = with_row(generation(9.0, 64.2), deep), with_row(generation(12.0, 38.4), deep)
    comparison = compare(saved(old), new)
    assert comparison_table(comparison)[1:] == [
        "All threads read memory at other GB/s: tg128 64 and 38. Measure again."
    ]
    assert not comparison_table(compare(saved(sample_benchmark()), sample_benchmark()))[1:]


def test_small_engines_are_slower_where_memory_is_faster() -> None:
    assert verdict(generation(0.043, 40.0), generation(0.060, 64.0)) == "other pace"
    assert verdict(generation(0.060, 64.0), generation(0.043, 40.0)) == "other pace"


def test_a_baseline_that_does_not_tell_the_pace_is_judged_by_its_own_band() -> None:
    old = saved(with_row(generation(9.0, 64.0)))
    old["rows"][0]["latency"]["noise_band"] = 0.4  # as such files have it
    del old["rows"][0]["read_gb_per_s"]
    for factor, expected in ((1.35, "same"), (1.5, "slower")):
        (change,) = compare(old, with_row(generation(9.0 * factor, 40.0))).changes
        assert change.verdict == expected


def test_a_machine_of_another_speed_is_named() -> None:
    old = saved(sample_benchmark())
    now = replace(sample_benchmark(), probe_s=sample_benchmark().probe_s * 1.25)
    assert compare(old, now).differences == ("speed of the machine (-20%)",)


def test_another_engine_and_missing_rows_are_named() -> None:
    old = saved(with_row(component("ve1", 9.1, 1, "slice"), component("tg128", 9.1, 1, "token")))
    old["engine"]["manifest_sha256"] = "cd" * 32
    comparison = compare(old, with_row(component("ve1", 9.1, 1, "slice")))
    assert comparison.missing == ("tg128",)
    assert comparison.differences == ("engine",)


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 99, "rows": []}', '{"rows": [1]}'])
def test_what_is_no_benchmark_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(BaselineError, match="no benchmark of schema version 1"):
        load_baseline(path)


def test_a_missing_file_and_a_missing_figure(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="cannot be read"):
        load_baseline(tmp_path / "none.json")
    old = saved(sample_benchmark())
    del old["rows"][0]["latency"]["median_s"]
    with pytest.raises(BaselineError, match="lacks a figure"):
        compare(old, sample_benchmark())


@pytest.mark.skipif(TIMED not in os.environ, reason=f"needs a quiet machine; set {TIMED}=1")
def test_a_planted_slowdown_of_a_fifth_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE

    pace = Pace(2)

    def measure() -> Row:
        meter = Meter(Limits(3, 1.5, 50.0), PowerReaders((), ()), pace)
        for _ in range(ATTEMPTS):
            with Engine.open(BUILTIN_ENGINE, threads=2) as engine:
                row = vision_row(engine, 1, meter, Peaks(None, None, None, None, None))
            if not row.is_disturbed:
                break
        return row

    before, again = measure(), measure()
    assert verdict(before, again) == "same"
    monkeypatch.setattr(engine_module, "open_vision", open_slow_vision)
    assert verdict(before, measure()) == "slower"
