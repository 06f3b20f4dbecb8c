"""Rows of whole scans with the built-in engine, two slices small."""

from pathlib import Path

import pytest

from edge_medgemma.runtime.backends.select import AUTOMATIC
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.profiling import scan_rows
from edge_medgemma.runtime.profiling.cold_start import ColdStart
from edge_medgemma.runtime.profiling.meter import Limits, Meter
from edge_medgemma.runtime.profiling.power import PowerReaders
from edge_medgemma.runtime.profiling.record import Row
from edge_medgemma.runtime.profiling.scan_rows import ScanBench
from edge_medgemma.runtime.profiling.synthetic_ct import write_synthetic_ct
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality

ONCE = Limits(repeat=1, row_minimum_s=0.0, row_maximum_s=60.0)


@pytest.fixture
def bench(tmp_path: Path) -> ScanBench:
    return ScanBench(BUILTIN_ENGINE, load_manifest(BUILTIN_ENGINE), AUTOMATIC, 2, tmp_path)


@pytest.fixture
def meter() -> Meter:
    return Meter(ONCE, PowerReaders((), ()))


def adds_up(row: Row) -> None:
    """Stages are those of one repetition, whose latency is between the extremes."""
    assert row.latency is not None and row.stages_s is not None and row.ttff is not None
    total_s = sum(row.stages_s.values())
    assert row.latency.min_s <= total_s * (1 + 1e-9)
    assert total_s * (1 - 1e-9) <= row.latency.max_s
    assert row.stages_s["other"] >= 0
    assert 0 < row.ttff.median_s <= row.latency.max_s


def test_cold_pays_for_opening_and_control_and_warm_does_not(bench, meter) -> None:
    cold, warm, cached = bench.cold(2, meter), bench.warm(2, meter), bench.cached(2, meter)
    for row in (cold, warm, cached):
        adds_up(row)
    assert "vision" in warm.stages_s and "vision" not in cached.stages_s
    assert {"open", "control"} <= cold.stages_s.keys()
    assert not {"open", "control"} & warm.stages_s.keys()
    assert {"discover", "decode", "vision", "prefill", "score", "write"} <= warm.stages_s.keys()


def test_warm_needs_cold(bench, meter) -> None:
    for measure in (bench.warm, bench.cached):
        with pytest.raises(ResourceError, match="ct2 cold was not measured"):
            measure(2, meter)


def test_too_little_memory_is_said_before_anything_runs(bench, meter, monkeypatch) -> None:
    monkeypatch.setattr(scan_rows, "available_bytes", lambda: 10**6)
    with pytest.raises(ResourceError, match=r"85 slices need .* of memory"):
        bench.cold(85, meter)


def test_a_fresh_process_is_taken_apart(tmp_path: Path) -> None:
    manifest = load_manifest(BUILTIN_ENGINE)
    row = ColdStart(BUILTIN_ENGINE, manifest, AUTOMATIC, 2, tmp_path).row()
    assert row.stages_s is not None and row.latency is not None
    assert sum(row.stages_s.values()) == pytest.approx(row.latency.max_s, rel=1e-6)
    assert {"process start", "import", "load vision", "first image", "first token"} <= set(
        row.stages_s
    )
    assert min(row.stages_s.values()) >= 0
    assert row.peak_bytes is not None and row.peak_bytes > 2**26


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    manifest = load_manifest(BUILTIN_ENGINE)
    with pytest.raises(ResourceError, match="process failed: error: no engine directory"):
        ColdStart(tmp_path / "none", manifest, AUTOMATIC, 2, tmp_path).row()


def test_the_drawn_scan_is_a_head_ct_that_differs_by_seed(tmp_path: Path) -> None:
    scans = [write_synthetic_ct(tmp_path / str(seed), 3, seed) for seed in (0, 1)]
    volumes = []
    for scan in scans:
        (series,) = find_series(scan).series
        assert (series.modality, series.body_part) == (Modality.CT, BodyPart.HEAD)
        assert series.shape == (3, 512, 512)
        assert series.problems == ()
        volumes.append(read_volume(series).array)
    assert volumes[0].min() < -900 and volumes[0].max() > 800
    assert (volumes[0] != volumes[1]).any(axis=(1, 2)).all()
