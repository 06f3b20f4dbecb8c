"""The whole command with the demo engine, every row once."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.schemas import assert_valid

from edge_medgemma.export.commands import benchmark as benchmark_command
from edge_medgemma.export.commands.benchmark import command, synthetic_engine
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.memory.host_memory import plan_memory
from edge_medgemma.runtime.profiling import scan_rows
from edge_medgemma.runtime.profiling.cold_start import ColdStart
from edge_medgemma.runtime.store.places import Place

SCANS = {f"ct{slices} {state}" for slices in (8, 32) for state in ("cold", "warm", "cached")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("benchmark")
    files = ["--json", str(folder / "b.json"), "--html", str(folder / "b.html")]

    def refuse(_: ColdStart) -> None:
        raise RuntimeError("this [one]\nfails")

    with pytest.MonkeyPatch.context() as patch:
        enough = plan_memory(load_manifest(BUILTIN_ENGINE), 32).peak_bytes
        patch.setattr(scan_rows, "available_bytes", lambda: enough)
        patch.setattr(ColdStart, "row", refuse)
        result = CliRunner().invoke(cli, ["benchmark", "--repeat", "1", "--threads", "2", *files])
    return result, folder


@pytest.mark.command("benchmark")
def test_every_row_is_measured_or_says_why(run) -> None:
    result, folder = run
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads((folder / "b.json").read_text())["rows"]}
    measured = {"ve1", "ve4", "ve8", "pp512", "tg128", "pp512@d2048", "tg128@d2048"}
    measured |= SCANS
    assert {name for name, row in rows.items() if row["latency"]} == measured
    assert rows["cold start"]["reason"] == "this [one] fails"
    assert "of memory with this engine" in rows["ct85 cold"]["reason"]
    assert rows["ct85 warm"]["reason"].startswith("ct85 cold was not measured")
    assert "cold start: this [one] fails" in result.stdout
    for name in measured:
        assert name in result.stdout
        assert rows[name]["peak_bytes"] > 2**26
    for name in measured - SCANS:
        assert rows[name]["ceiling"]["fraction"] > 0
    timing, latency_s = rows["tg128"]["tokens_timing"], rows["tg128"]["latency"]["median_s"]
    assert 0 < timing["ttft_s"] < timing["ttft_s"] + 127 * timing["itl_s"] <= latency_s * (1 + 1e-9)


def test_the_json_follows_its_schema(run) -> None:
    assert_valid(run[1] / "b.json", "benchmark")
    assert "<h2>Roofline</h2>" in (run[1] / "b.html").read_text()


def test_lines_fit_a_terminal(run) -> None:
    table = [line for line in run[0].stdout.splitlines() if line[:1] in "┏┃┡│└"]
    assert table and max(map(len, table)) <= 100


def test_an_unreadable_baseline_costs_no_measurement(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--baseline", str(tmp_path / "none.json")])
    assert "cannot be read" in str(result.exception)
    result = CliRunner().invoke(command, ["--engine", "x", "--synthetic", "tiny"])
    assert "either --engine or --synthetic" in result.output


def test_a_synthetic_engine_is_made_once(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = synthetic_engine("tiny")
    assert first.parent == Place.ENGINES.folder
    stamp = (first / "manifest.json").stat().st_mtime_ns
    assert "kept for the next time" in capsys.readouterr().err
    assert synthetic_engine("tiny") == first
    assert (first / "manifest.json").stat().st_mtime_ns == stamp
    assert capsys.readouterr().err == ""

    source = tmp_path / "export"
    (source / "graphs").mkdir(parents=True)
    (source / "graphs" / "changed.py").write_text("another exporter\n")
    monkeypatch.setattr(benchmark_command, "__file__", str(source / "commands" / "benchmark.py"))
    second = synthetic_engine("tiny")
    assert second != first and not first.exists()
