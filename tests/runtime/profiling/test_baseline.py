"""What a baseline catches, and what it leaves alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.sample_benchmark import component, sample_benchmark
from support.schemas import assert_valid

from edge_medgemma.runtime.commands.benchmark_table import comparison_table
from edge_medgemma.runtime.errors import BaselineError
from edge_medgemma.runtime.profiling.baseline import compare, load_baseline, write_benchmark
from edge_medgemma.runtime.profiling.record import Benchmark, Row


def with_row(*rows: Row) -> Benchmark:
    return replace(sample_benchmark(), rows=rows)


def test_a_run_against_itself_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    write_benchmark(sample_benchmark(), path)
    assert_valid(path, "benchmark")
    assert load_baseline(path) == sample_benchmark()
    comparison = compare(load_baseline(path), sample_benchmark())
    assert {change.verdict for change in comparison.changes} == {"same"}
    assert comparison.slower == comparison.missing == comparison.differences == ()
    assert len(comparison_table(comparison)) == 1


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.2, "slower"), (1.05, "same"), (0.95, "same"), (0.8, "faster")]
)
def test_a_fifth_is_news_and_a_twentieth_is_not(factor: float, expected: str) -> None:
    old, new = component("ve1", 9.1, 1, "slice"), component("ve1", 9.1 * factor, 1, "slice")
    (change,) = compare(with_row(old), with_row(new)).changes
    assert change.verdict == expected
    assert change.relative == pytest.approx(factor - 1)


def test_another_engine_and_missing_rows_are_named() -> None:
    old = with_row(component("ve1", 9.1, 1, "slice"), component("tg128", 9.1, 1, "token"))
    old = replace(old, engine=replace(old.engine, manifest_sha256="cd" * 32))
    comparison = compare(old, with_row(component("ve1", 9.1, 1, "slice")))
    assert comparison.missing == ("tg128",)
    assert comparison.differences == ("engine",)


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 99, "rows": []}', '{"rows": [1]}'])
def test_what_is_no_benchmark_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(BaselineError, match="is no benchmark"):
        load_baseline(path)


def test_a_missing_file_and_a_missing_figure(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    with pytest.raises(BaselineError, match="cannot be read"):
        load_baseline(path)
    write_benchmark(sample_benchmark(), path)
    document = json.loads(path.read_text())
    del document["rows"][0]["latency"]["median_s"]
    path.write_text(json.dumps(document))
    with pytest.raises(BaselineError, match="required field `median_s`"):
        load_baseline(path)
