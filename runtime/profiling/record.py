"""What a benchmark found, as plain records; files and tables are made of it elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edge_medgemma.runtime.profiling.distribution import Distribution
from edge_medgemma.runtime.profiling.machine import Machine
from edge_medgemma.runtime.profiling.roofline import Ceiling, Peaks
from edge_medgemma.runtime.profiling.thermal import Thermal

QUIET_SHARE = 0.03
"""Of all cores: while other programs take more, repetitions are set aside."""

QUIET_PACE = 0.85
"""Of the machine's best in the run, and between two paces of memory: below it, repetitions are set
aside and runs not compared."""


class Layer(StrEnum):
    """What a row's clock goes around; the two are never compared with each other."""

    COMPONENT = "component"
    """One part of the engine; nothing of the scan is read from disk."""
    END_TO_END = "end_to_end"
    """A folder of DICOM files to triage.json."""


def agreement(one_gb_per_s: float, other_gb_per_s: float) -> float:
    """Of two paces of memory: the slower over the faster.

    On a virtual machine all threads together read half as much again for minutes, as if its cores
    no longer shared a path to memory. Generation is then a third faster, and the very short
    operations of small engines, whose cores meet more slowly, are a third slower; large products,
    and one thread that reads, are as fast as before. Rows changed by its power of 0.4 to 0.8.
    """
    return min(one_gb_per_s, other_gb_per_s) / max(one_gb_per_s, other_gb_per_s)


def is_quiet(others_share: float | None, pace: float) -> bool:
    """Whether a repetition counts, by what others took and how fast the machine was meanwhile."""
    return (others_share is None or others_share <= QUIET_SHARE) and pace >= QUIET_PACE


@dataclass(frozen=True, slots=True)
class TokenTiming:
    """Of one generated answer, medians over the repetitions.

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
    """What one repetition took, as one reader saw it."""

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
    """What is inside the clock, in a few words."""
    reason: str = ""
    """Why it was not measured; empty where it was."""
    latency: Distribution | None = None
    """Seconds of one repetition; None where it was not measured."""
    warm_up_s: float | None = None
    """The repetition before the first that counts; None where there was none."""
    num_rejected: int = 0
    """Repetitions that do not count: other programs were at work or the machine was slow."""
    others_share: float | None = None
    """Of all cores, at most, while a repetition that counts ran; None where that is not told."""
    pace: float | None = None
    """Of a fixed product, as a fraction of its best in the run, or agreement of the pace of memory
    with the row's usual one: the least beside a repetition that counts; None where it was not
    looked at."""
    read_gb_per_s: float | None = None
    """10^9 bytes a second that all threads read from memory beside the repetitions that count, the
    median; None where the row does not go with it, or was not measured."""
    work: int = 1
    """Units of work in a repetition."""
    unit: str = "scan"
    """`token`, `slice` or `scan`"""
    slices: int = 0
    tokens: int = 0
    """In or out, as the name says."""
    depth: int = 0
    """Tokens read before the clock starts."""
    tokens_timing: TokenTiming | None = None
    ttff: Distribution | None = None
    """Seconds from the start to the first score of a finding."""
    stages_s: Mapping[str, float] | None = None
    """Seconds per stage of the repetition with the median latency; they add up to it."""
    peak_bytes: int | None = None
    """Of the process, while the row ran; the benchmark's own 0.2 GB included."""
    peak_method: str = "not available"
    energy: tuple[Energy, ...] = ()
    ceiling: Ceiling | None = None
    throttled: bool | None = None
    """Did the processor's throttle counters move? None where there are none."""
    is_compared: bool = True
    """False for rows that no baseline is compared with: they depend on more than the build."""

    @property
    def is_disturbed(self) -> bool:
        """The machine was never quiet: the figures are not the engine's alone."""
        return self.pace is not None and not is_quiet(self.others_share, self.pace)

    @property
    def rate(self) -> float | None:
        """Units of work a second, at the median."""
        return self.work / self.latency.median_s if self.latency else None

    @property
    def joules(self) -> float | None:
        """Of one repetition, all readers together; None where nothing can be read."""
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
    """What is known of its agreement with the model it was made of, in a few words."""


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
    """One run of the benchmark."""

    created_at: str
    """UTC, ISO 8601."""
    program_version: str
    wall_s: float
    engine: EngineUnderTest
    settings: Settings
    machine: Machine
    probe_s: float
    """Best time of the fixed product that the machine's pace is measured with."""
    peaks: Peaks
    thermal_before: Thermal
    thermal_after: Thermal
    power: str
    """Readers in use, or why there is none."""
    rows: tuple[Row, ...]
    device_peaks: Peaks | None = None
    """Of the GPU that ran a part"""
