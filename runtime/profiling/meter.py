"""Repeating one thing while clock, memory, power and throttling are watched."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median, median_low
from typing import Generic, TypeVar

from edge_medgemma.runtime.memory.peak_rss import PeakMemory
from edge_medgemma.runtime.profiling.clock_probe import Pace
from edge_medgemma.runtime.profiling.cpu_contention import BackgroundLoad
from edge_medgemma.runtime.profiling.distribution import Distribution
from edge_medgemma.runtime.profiling.power import PowerReaders
from edge_medgemma.runtime.profiling.record import Energy, Row, agreement, is_quiet
from edge_medgemma.runtime.profiling.thermal import has_throttled, read_thermal

MAXIMUM_REPETITIONS = 200

DISTURBED_PATIENCE = 2.0
"""Times a row's least time that is waited for quiet; after that, disturbed repetitions count."""

WINDOW_S = 0.5
"""Processor times are told in hundredths of a second."""

IDLE_S = 2.0
"""How long power is read with nothing running."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the rows of a suite may take."""

    repeat: int
    """Repetitions that are wanted at least."""
    row_minimum_s: float
    """Short rows are repeated for so long: the median of many is calmer."""
    row_maximum_s: float
    """Long rows are not repeated beyond this."""
    has_short_operations: bool = False
    """The engine fits into the processor's caches: no row of it is bound by arithmetic."""


@dataclass(frozen=True, slots=True)
class Measured(Generic[Result]):
    """A row with everything that was watched, and what each repetition gave."""

    row: Row
    results: tuple[Result, ...]
    samples_s: tuple[float, ...]

    @property
    def middle(self) -> int:
        """Which repetition has the median latency (the later of two)."""
        samples_s = self.samples_s
        return sorted(range(len(samples_s)), key=samples_s.__getitem__)[len(samples_s) // 2]


@dataclass(frozen=True, slots=True)
class _Repetition(Generic[Result]):
    seconds: float
    result: Result
    others_share: float | None
    product_pace: float
    reads_gb_per_s: tuple[float, ...]
    """Before and after; empty where the row does not go with the pace of memory."""

    def pace(self, usual_gb_per_s: float) -> float:
        agreements = [agreement(read, usual_gb_per_s) for read in self.reads_gb_per_s]
        return min([self.product_pace, *agreements])


class _Taken(Generic[Result]):
    """Repetitions so far, and which of them count."""

    def __init__(self) -> None:
        self.all: list[_Repetition[Result]] = []

    @property
    def usual_gb_per_s(self) -> float:
        """Pace of memory that most saw, of those that nothing else disturbed; 0: none looked."""
        calm = [one for one in self.all if is_quiet(one.others_share, one.product_pace)]
        reads = [read for one in calm or self.all for read in one.reads_gb_per_s]
        return median_low(reads) if reads else 0.0

    @property
    def quiet(self) -> list[_Repetition[Result]]:
        usual_gb_per_s = self.usual_gb_per_s
        return [one for one in self.all if is_quiet(one.others_share, one.pace(usual_gb_per_s))]

    @property
    def longest_s(self) -> float:
        return max(one.seconds for one in self.all)


class Meter:
    """Measures rows one after the other."""

    def __init__(self, limits: Limits, power: PowerReaders, pace: Pace) -> None:
        """Reads idle power at once, where any can be read."""
        self.limits = limits
        self._pace = pace
        self._power = power
        self._idle_w = self._measure_idle_w()

    def measure(
        self,
        row: Row,
        action: Callable[[], Result],
        warm_up: Callable[[], object] | None = None,
        *,
        is_compute_bound: bool = False,
    ) -> Measured[Result]:
        """The row, measured.

        Args:
            row: what is measured; latency, memory, energy and throttling are filled in
            action: one repetition
            warm_up: done once before, outside the statistics
            is_compute_bound: large products, which go on as fast where memory is slow
        """
        is_paced = self.limits.has_short_operations or not is_compute_bound
        warm_up_s = None
        if warm_up is not None:
            start_s = time.perf_counter()
            warm_up()
            warm_up_s = time.perf_counter() - start_s
        taken = _Taken[Result]()
        memory = PeakMemory()
        thermal = read_thermal()
        joules = self._power.joules()
        with memory.measure():
            while self._wants_more(taken):
                self._take_window(taken, action, is_paced)
        energy = tuple(
            Energy(reader.name, (after - before) / len(taken.all), idle_w)
            for reader, before, after, idle_w in zip(
                self._power.readers, joules, self._power.joules(), self._idle_w, strict=True
            )
        )
        counted = taken.quiet or taken.all
        samples_s = tuple(one.seconds for one in counted)
        reads = [read for one in counted for read in one.reads_gb_per_s]
        shares = [one.others_share for one in counted if one.others_share is not None]
        measured = replace(
            row,
            latency=Distribution.of(samples_s),
            warm_up_s=warm_up_s,
            num_rejected=len(taken.all) - len(counted),
            others_share=max(shares, default=None),
            pace=min(one.pace(taken.usual_gb_per_s) for one in counted),
            read_gb_per_s=median(reads) if reads else None,
            peak_bytes=memory.bytes,
            peak_method=memory.method,
            energy=energy,
            throttled=has_throttled(thermal, read_thermal()),
        )
        return Measured(measured, tuple(one.result for one in counted), samples_s)

    def _take_window(
        self, taken: _Taken[Result], action: Callable[[], Result], is_paced: bool
    ) -> None:
        """Repeat for long enough to know what others did meanwhile."""
        pace, reads_gb_per_s = self._pace.fraction(), self._reads_gb_per_s(is_paced)
        load = BackgroundLoad()
        window: list[tuple[float, Result]] = []
        while not window or load.elapsed_s < WINDOW_S:
            start_s = time.perf_counter()
            result = action()
            window.append((time.perf_counter() - start_s, result))
        share = load.share()
        reads_gb_per_s += self._reads_gb_per_s(is_paced)
        pace = min(pace, self._pace.fraction())
        taken.all += [
            _Repetition(seconds, result, share, pace, reads_gb_per_s) for seconds, result in window
        ]

    def _reads_gb_per_s(self, is_paced: bool) -> tuple[float, ...]:
        return (self._pace.read_gb_per_s(),) if is_paced else ()

    def _wants_more(self, taken: "_Taken[Result]") -> bool:
        """Enough quiet repetitions; where others keep working, enough of any kind."""
        limits, counted = self.limits, taken.quiet
        if not taken.all:
            return True
        spent_s = _total_s(taken.all)
        if spent_s + taken.longest_s > limits.row_maximum_s:
            return False
        if spent_s - _total_s(counted) > DISTURBED_PATIENCE * limits.row_minimum_s:
            counted = taken.all
        is_enough = len(counted) >= limits.repeat and _total_s(counted) >= limits.row_minimum_s
        return len(counted) < MAXIMUM_REPETITIONS and not is_enough

    def _measure_idle_w(self) -> list[float]:
        if not self._power.readers:
            return []
        before, start_s = self._power.joules(), time.perf_counter()
        time.sleep(IDLE_S)
        elapsed_s = time.perf_counter() - start_s
        return [(b - a) / elapsed_s for a, b in zip(before, self._power.joules(), strict=True)]


def _total_s(repetitions: list[_Repetition[Result]]) -> float:
    return sum(one.seconds for one in repetitions)
