"""Repeating one thing while clock, memory, power and throttling are watched."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from edge_medgemma.runtime.memory.peak_rss import PeakMemory
from edge_medgemma.runtime.profiling.distribution import Distribution
from edge_medgemma.runtime.profiling.power import PowerReaders
from edge_medgemma.runtime.profiling.record import Energy, Row
from edge_medgemma.runtime.thermal import has_throttled, read_thermal

MAXIMUM_REPETITIONS = 200

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


@dataclass(frozen=True, slots=True)
class Measured(Generic[Result]):
    """A row with everything that was watched, and what each repetition gave."""

    row: Row
    results: tuple[Result, ...]
    samples_s: tuple[float, ...]

    @property
    def middle(self) -> int:
        """Index of the repetition with the median latency (the later of two)."""
        samples_s = self.samples_s
        return sorted(range(len(samples_s)), key=samples_s.__getitem__)[len(samples_s) // 2]


class Meter:
    """Measures rows one after the other."""

    def __init__(self, limits: Limits, power: PowerReaders) -> None:
        """Reads idle power at once, where any can be read."""
        self.limits = limits
        self._power = power
        self._idle_w = self._measure_idle_w()

    def measure(
        self,
        row: Row,
        action: Callable[[], Result],
        warm_up: Callable[[], object] | None = None,
    ) -> Measured[Result]:
        """The row, measured.

        Args:
            row: what is measured; latency, memory, energy and throttling are filled in
            action: one repetition
            warm_up: done once before, outside the statistics
        """
        warm_up_s = None if warm_up is None else _timed(warm_up)[0]
        taken: list[tuple[float, Result]] = []
        memory = PeakMemory()
        thermal = read_thermal()
        joules = self._power.joules()
        with memory.measure():
            while self._wants_more([seconds for seconds, _ in taken]):
                taken.append(_timed(action))
        energy = tuple(
            Energy(reader.name, (after - before) / len(taken), idle_w)
            for reader, before, after, idle_w in zip(
                self._power.readers, joules, self._power.joules(), self._idle_w, strict=True
            )
        )
        samples_s = tuple(seconds for seconds, _ in taken)
        measured = replace(
            row,
            latency=Distribution.of(samples_s),
            warm_up_s=warm_up_s,
            peak_bytes=memory.bytes,
            peak_method=memory.method,
            energy=energy,
            throttled=has_throttled(thermal, read_thermal()),
        )
        return Measured(measured, tuple(result for _, result in taken), samples_s)

    def _wants_more(self, samples_s: list[float]) -> bool:
        limits, spent_s = self.limits, sum(samples_s)
        if not samples_s:
            return True
        if spent_s + max(samples_s) > limits.row_maximum_s:
            return False
        is_enough = len(samples_s) >= limits.repeat and spent_s >= limits.row_minimum_s
        return len(samples_s) < MAXIMUM_REPETITIONS and not is_enough

    def _measure_idle_w(self) -> list[float]:
        if not self._power.readers:
            return []
        before, start_s = self._power.joules(), time.perf_counter()
        time.sleep(IDLE_S)
        elapsed_s = time.perf_counter() - start_s
        return [(b - a) / elapsed_s for a, b in zip(before, self._power.joules(), strict=True)]


def _timed(action: Callable[[], Result]) -> tuple[float, Result]:
    start_s = time.perf_counter()
    result = action()
    return time.perf_counter() - start_s, result
