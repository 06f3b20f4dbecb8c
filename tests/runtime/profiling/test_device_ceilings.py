"""A row is compared with the peaks of what ran it: a GPU, our kernels, or onnxruntime."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.host_backend import HostBackend

from edge_medgemma.runtime.backends.select import AUTOMATIC, Provider, Providers
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.kernels.level import level_absence
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.profiling import benchmark
from edge_medgemma.runtime.profiling.benchmark import SUITES, Request
from edge_medgemma.runtime.profiling.meter import Limits, Meter
from edge_medgemma.runtime.profiling.power import find_power_readers
from edge_medgemma.runtime.profiling.roofline import Peaks, vision_work

CPU = Providers(Provider.CPU, Provider.CPU)


@pytest.mark.parametrize("providers", [AUTOMATIC, CPU])
def test_ceilings_are_of_what_ran_the_row(
    tiny_tensorrt_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    providers: Providers,
) -> None:
    backend = HostBackend()
    opened: Any = partial(Engine.open, devices={Provider.TENSORRT: backend})
    monkeypatch.setattr(benchmark.Engine, "open", opened)
    cpu = Peaks(3e10, 2.4e10, 3.2e11, 9e11, 4.8e11)
    monkeypatch.setattr(benchmark, "measure_peaks", lambda *_: cpu)
    manifest = load_manifest(tiny_tensorrt_directory)
    request = Request(tiny_tensorrt_directory, providers, 1, "quick", repeat=1)
    limits = Limits(repeat=1, row_minimum_s=0.0, row_maximum_s=5.0)
    meter = Meter(limits, find_power_readers())
    run = benchmark._Run(request, manifest, SUITES["quick"], meter, tmp_path)
    (row,) = run._vision_rows(2)
    assert row.ceiling is not None and row.latency is not None
    work = vision_work(manifest, 2)
    if providers is CPU:
        assert run.device_peaks is None
        peaks = run.peaks
    else:
        assert run.device_peaks is not None
        assert run.device_peaks.device == "Host"
        peaks = run.device_peaks
        assert row.ceiling.seconds == max(work.flop / 5e13, work.bytes / 4e11)
    assert peaks.f32_flop_per_s is not None and peaks.read_bytes_per_s is not None
    expected = max(work.flop / peaks.f32_flop_per_s, work.bytes / peaks.read_bytes_per_s)
    assert row.ceiling.seconds == pytest.approx(expected)


@pytest.mark.skipif(level_absence() is not None, reason="no kernel computes here")
def test_a_tower_on_the_kernels_is_held_against_their_instructions(
    tiny_engine_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Peaks(3e30, 2e30, 1e3, 1e3, 1e3, instruction_flop_per_s={"int8": 4e9, "int16": 2e9})
    monkeypatch.setattr(benchmark, "measure_peaks", lambda *_: slow)
    manifest = load_manifest(tiny_engine_directory)
    native = Providers(Provider.NATIVE, Provider.CPU)
    request = Request(tiny_engine_directory, native, 1, "quick", repeat=1)
    meter = Meter(Limits(repeat=1, row_minimum_s=0.0, row_maximum_s=5.0), find_power_readers())
    run = benchmark._Run(request, manifest, SUITES["quick"], meter, tmp_path)
    (row,) = run._vision_rows(2)
    assert row.ceiling is not None
    assert row.ceiling.seconds == pytest.approx(vision_work(manifest, 2).flop / 2e9)
