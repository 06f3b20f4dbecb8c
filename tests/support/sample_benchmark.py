"""A benchmark as a 4B engine on a laptop might give it, put together by hand."""

from dataclasses import replace

from edge_medgemma.runtime.profiling.distribution import Distribution
from edge_medgemma.runtime.profiling.machine import Machine
from edge_medgemma.runtime.profiling.record import (
    SCHEMA_VERSION,
    Benchmark,
    Energy,
    EngineUnderTest,
    Layer,
    Row,
    Settings,
    TokenTiming,
)
from edge_medgemma.runtime.profiling.roofline import Ceiling, Peaks, Work
from edge_medgemma.runtime.thermal import Thermal

_THERMAL = Thermal({"x86_pkg_temp": 61.0}, 3200.0, 4400.0, 3)
_STAGES = {"discover": 0.2, "decode": 1.0, "render": 0.3, "vision": 90.0, "prefill": 27.0}
_STAGES |= {"score": 0.9, "evidence": 6.0, "report": 0.1, "write": 0.02, "other": 0.01}


def spread(median_s: float, n: int = 5) -> Distribution:
    """A calm row."""
    return Distribution.of([median_s * (1 + 0.01 * (i - n // 2)) for i in range(n)])


def component(name: str, median_s: float, work: int, unit: str, depth: int = 0) -> Row:
    ceiling = Ceiling(Work(2.4e9 * work, 6.4e9 * work, 1e8), median_s / 2, "memory", 0.5)
    return Row(
        name,
        Layer.COMPONENT,
        "greedy generation from a one-token prompt",
        latency=spread(median_s),
        warm_up_s=median_s,
        work=work,
        unit=unit,
        tokens=work,
        depth=depth,
        tokens_timing=TokenTiming(0.1, 0.09, 0.09, 0.12) if name.startswith("tg") else None,
        peak_bytes=3_600_000_000,
        peak_method="kernel",
        energy=(Energy("RAPL package-0", 120.0, 4.0),),
        ceiling=ceiling,
        throttled=False,
    )


def scan(slices: int, state: str, factor: float) -> Row:
    stages_s = {name: value * factor * slices / 8 for name, value in _STAGES.items()}
    if state == "cold":
        stages_s["control"] = 31.0 * slices / 8
    return Row(
        f"ct{slices} {state}",
        Layer.END_TO_END,
        "discover, decode, vision, prefill, all findings, key slices, triage.json",
        latency=spread(sum(stages_s.values()), 1),
        slices=slices,
        ttff=spread(sum(stages_s.values()) * 0.94, 1),
        stages_s=stages_s,
        peak_bytes=3_600_000_000,
        peak_method="kernel",
        throttled=False,
    )


def sample_benchmark() -> Benchmark:
    rows = (
        component("pp512", 6.1, 512, "token"),
        component("tg128", 11.2, 128, "token"),
        component("pp512@d8192", 9.8, 512, "token", 8192),
        component("tg128@d8192", 17.0, 128, "token", 8192),
        component("ve1", 9.1, 1, "slice"),
        scan(8, "cold", 1.0),
        scan(8, "warm", 1.0),
        scan(32, "warm", 1.1),
        Row(
            "ct85 cold", Layer.END_TO_END, "", reason="needs about 9.1 GB of memory, 3 GB are free"
        ),
        replace(component("ve8", 72.0, 8, "slice"), energy=()),
    )
    return Benchmark(
        schema_version=SCHEMA_VERSION,
        created_at="2026-01-01T00:00:00+00:00",
        program_version="0.1.0",
        wall_s=531.0,
        engine=EngineUnderTest(
            "synthetic-4b-seed0", "synthetic", "ab" * 32, {"vision": "int8"}, 4_080_000_000, "unverified"
        ),
        settings=Settings("quick", 3, 2, {"vision": "auto", "decoder": "auto"}),
        machine=Machine(
            "A processor", "x86_64", 2, 24 * 10**9, "Linux 6", "", "governor performance", "3.11.0",
            {"onnxruntime": "1.32.0"},
        ),
        others_share=0.01,
        peaks=Peaks(3e10, 2.4e10, 3.2e11, 9e11, 4.8e11),
        thermal_before=_THERMAL,
        thermal_after=_THERMAL,
        power="RAPL package-0",
        rows=rows,
    )  # fmt: skip
