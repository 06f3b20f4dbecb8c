"""Repeating one thing while clock, memory, power and throttling are watched."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from edge_medgemma.runtime.profiling.distribution import BAND_FLOOR, Distribution
from edge_medgemma.runtime.profiling.others import OtherLoad
from edge_medgemma.runtime.profiling.pace import Pace
from edge_medgemma.runtime.profiling.power import PowerReaders
from edge_medgemma.runtime.profiling.record import Energy, Row, is_quiet
from edge_medgemma.runtime.profiling.resident import PeakMemory
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
    band_floor: float = BAND_FLOOR
    """Least noise band of a row."""


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
    pace: float


class _Taken(Generic[Result]):
    """Repetitions so far, those that others disturbed apart."""

    def __init__(self) -> None:
        self.quiet: list[_Repetition[Result]] = []
        self.disturbed: list[_Repetition[Result]] = []

    @property
    def count(self) -> int:
        return len(self.quiet) + len(self.disturbed)

    @property
    def spent_s(self) -> float:
        return _total_s(self.quiet) + _total_s(self.disturbed)

    @property
    def longest_s(self) -> float:
        return max(one.seconds for one in self.quiet + self.disturbed)


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
        band_floor: float = BAND_FLOOR,
    ) -> Measured[Result]:
        """The row, measured.

        Args:
            row: what is measured; latency, memory, energy and throttling are filled in
            action: one repetition
            warm_up: done once before, outside the statistics
            is_compute_bound: it goes on as fast where memory is slow
            band_floor: least noise band, where that of the limits is no wider
        """
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
                self._take_window(taken, action, is_compute_bound)
        energy = tuple(
            Energy(reader.name, (after - before) / taken.count, idle_w)
            for reader, before, after, idle_w in zip(
                self._power.readers, joules, self._power.joules(), self._idle_w, strict=True
            )
        )
        counted = taken.quiet or taken.disturbed
        samples_s = tuple(one.seconds for one in counted)
        shares = [one.others_share for one in counted if one.others_share is not None]
        measured = replace(
            row,
            latency=Distribution.of(samples_s, max(self.limits.band_floor, band_floor)),
            warm_up_s=warm_up_s,
            set_aside=taken.count - len(counted),
            others_share=max(shares, default=None),
            pace=min(one.pace for one in counted),
            peak_bytes=memory.bytes,
            peak_method=memory.method,
            energy=energy,
            throttled=has_throttled(thermal, read_thermal()),
        )
        return Measured(measured, tuple(one.result for one in counted), samples_s)

    def _take_window(
        self, taken: _Taken[Result], action: Callable[[], Result], is_compute_bound: bool
    ) -> None:
        """Repeat for long enough to know what others did meanwhile."""
        pace = self._pace.fraction(is_compute_bound=is_compute_bound)
        load = OtherLoad()
        window: list[tuple[float, Result]] = []
        while not window or load.elapsed_s < WINDOW_S:
            start_s = time.perf_counter()
            result = action()
            window.append((time.perf_counter() - start_s, result))
        share = load.share()
        pace = min(pace, self._pace.fraction(is_compute_bound=is_compute_bound))
        place = taken.quiet if is_quiet(share, pace) else taken.disturbed
        place += [_Repetition(seconds, result, share, pace) for seconds, result in window]

    def _wants_more(self, taken: "_Taken[Result]") -> bool:
        """Enough quiet repetitions; where others keep working, enough of any kind."""
        limits = self.limits
        if not taken.count:
            return True
        if taken.spent_s + taken.longest_s > limits.row_maximum_s:
            return False
        count, spent_s = len(taken.quiet), _total_s(taken.quiet)
        if _total_s(taken.disturbed) > DISTURBED_PATIENCE * limits.row_minimum_s:
            count, spent_s = taken.count, taken.spent_s
        is_enough = count >= limits.repeat and spent_s >= limits.row_minimum_s
        return count < MAXIMUM_REPETITIONS and not is_enough

    def _measure_idle_w(self) -> list[float]:
        if not self._power.readers:
            return []
        before, start_s = self._power.joules(), time.perf_counter()
        time.sleep(IDLE_S)
        elapsed_s = time.perf_counter() - start_s
        return [(b - a) / elapsed_s for a, b in zip(before, self._power.joules(), strict=True)]


def _total_s(repetitions: list[_Repetition[Result]]) -> float:
    return sum(one.seconds for one in repetitions)
