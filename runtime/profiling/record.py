"""Results of a benchmark, as plain records; files and tables are made of them elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from edge_medgemma.runtime.profiling.distribution import Distribution
from edge_medgemma.runtime.profiling.machine import Machine
from edge_medgemma.runtime.profiling.roofline import Ceiling, Peaks
from edge_medgemma.runtime.thermal import Thermal

SCHEMA_VERSION: Final = 2
"""Raised when a field of the JSON file is removed or changes its meaning."""


class Layer(StrEnum):
    """Extent of a row's clock; the two are never compared with each other."""

    COMPONENT = "component"
    """One part of the engine; nothing of the scan is read from disk."""
    END_TO_END = "end_to_end"
    """A folder of DICOM files to triage.json."""


@dataclass(frozen=True, slots=True)
class TokenTiming:
    """Timing of one generated answer, medians over the repetitions.

    AIPerf's formulas (NVIDIA, docs of AIPerf, "metrics reference"): TTFT = first token - request;
    ITL = (request latency - TTFT) / (output tokens - 1), which vLLM calls TPOT. What vLLM calls
    ITL, the single gaps between tokens, is given as quantiles.
    """

    ttft_s: float
    itl_s: float
    gap_p50_s: float
    gap_p99_s: float


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of one repetition, as one reader saw it."""

    reader: str
    joules: float
    """Per repetition, the idle share included."""
    idle_w: float
    """Before the first row, nothing running."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement, or the reason why there is none."""

    name: str
    layer: Layer
    includes: str
    """Work inside the clock, in a few words."""
    reason: str = ""
    """Why it was not measured; empty where it was."""
    latency: Distribution | None = None
    """Seconds of one repetition; None where it was not measured."""
    warm_up_s: float | None = None
    """The repetition before the first that counts; None where there was none."""
    work: int = 1
    """Units of work in a repetition."""
    unit: str = "scan"
    """`token`, `slice` or `scan`"""
    slices: int = 0
    tokens: int = 0
    """In or out, as the name says."""
    depth: int = 0
    """Tokens in the context before the clock starts."""
    tokens_timing: TokenTiming | None = None
    ttff: Distribution | None = None
    """Seconds from the start to the first score of a finding."""
    stages_s: Mapping[str, float] | None = None
    """Seconds per stage of the repetition with the median latency; they add up to it."""
    peak_bytes: int | None = None
    """Peak resident bytes of the process while the row ran; the benchmark's own 0.2 GB included."""
    peak_method: str = "not available"
    energy: tuple[Energy, ...] = ()
    ceiling: Ceiling | None = None
    throttled: bool | None = None
    """Did the processor's throttle counters move? None where there are none."""

    @property
    def rate(self) -> float | None:
        """Units of work a second, at the median."""
        return self.work / self.latency.median_s if self.latency else None

    @property
    def joules(self) -> float | None:
        """Joules of one repetition, all readers together; None where nothing can be read."""
        return sum(one.joules for one in self.energy) if self.energy else None

    @property
    def work_per_joule(self) -> float | None:
        """AIPerf's output tokens per joule, where the unit is a token."""
        return self.work / self.joules if self.joules else None


@dataclass(frozen=True, slots=True)
class EngineUnderTest:
    """Which engine was measured."""

    name: str
    kind: str
    """`checkpoint` or `synthetic`"""
    manifest_sha256: str
    precision: Mapping[str, str]
    bytes: int
    parity: str
    """Agreement with the model it was made of, as far as it is known, in a few words."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How it was measured."""

    suite: str
    repeat: int
    threads: int
    providers: Mapping[str, str]
    """Part to library."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One run of the benchmark, which is also what its JSON file holds."""

    schema_version: Literal[2]
    created_at: str
    """UTC, ISO 8601."""
    program_version: str
    wall_s: float
    engine: EngineUnderTest
    settings: Settings
    machine: Machine
    others_share: float | None
    """Share of all cores that other programs took during the run; None where it is not told."""
    peaks: Peaks
    thermal_before: Thermal
    thermal_after: Thermal
    power: str
    """Readers in use, or why there is none."""
    rows: tuple[Row, ...]
    device_peaks: Peaks | None = None
    """Peaks of the GPU that ran a part"""
