"""How often a row is repeated, and what is watched meanwhile."""

from collections import namedtuple

import pytest

from edge_medgemma.runtime.profiling import cpu_contention
from edge_medgemma.runtime.profiling import meter as meter_module
from edge_medgemma.runtime.profiling.cpu_contention import BackgroundLoad
from edge_medgemma.runtime.profiling.meter import Limits, Measured, Meter
from edge_medgemma.runtime.profiling.power import PowerReaders
from edge_medgemma.runtime.profiling.record import Layer, Row

CpuTimes = namedtuple("CpuTimes", "user idle steal guest")
ProcessTimes = namedtuple("ProcessTimes", "user system children_user children_system")

ROW = Row("ve1", Layer.COMPONENT, "")


class FakePower:
    """Ten joules between one look and the next."""

    name = "fake"

    def __init__(self) -> None:
        self.looks = 0

    def joules(self) -> float:
        self.looks += 1
        return 10.0 * self.looks

    def close(self) -> None:
        pass


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(meter_module, "time", clock)
    return clock


NO_POWER = PowerReaders((), ())


def measure(clock: FakeTime, limits: Limits, power: PowerReaders = NO_POWER) -> Measured[int]:
    """Repetitions of 10 ms give 0, 1, 2 ...; the warm-up takes a second."""
    numbers = iter(range(1000))

    def action() -> int:
        clock.sleep(0.01)
        return next(numbers)

    return Meter(limits, power).measure(ROW, action, lambda: clock.sleep(1.0))


def test_warm_up_is_apart_and_energy_is_per_repetition(clock) -> None:
    row = measure(clock, Limits(5, 0.0, 9.0), PowerReaders((FakePower(),), ())).row
    assert row.warm_up_s == 1.0
    assert row.latency is not None
    assert (row.latency.n, row.latency.max_s) == (5, pytest.approx(0.01))
    assert [energy.joules for energy in row.energy] == [10.0 / 5]
    assert [energy.idle_w for energy in row.energy] == [10.0 / meter_module.IDLE_S]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [(Limits(10, 0.0, 0.025), 2), (Limits(3, 0.0, 9.0), 3), (Limits(3, 0.205, 9.0), 21)],
)
def test_short_rows_are_repeated_for_long_and_long_rows_not(
    clock, limits: Limits, expected: int
) -> None:
    row = measure(clock, limits).row
    assert row.latency is not None and row.latency.n == expected


def test_background_load_is_what_others_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 s of all cores 60 were busy, 10 of them ours; a guest is in the user time already."""
    seconds = iter([0.0, 1.0])

    def cpu_times() -> CpuTimes:
        scale = next(seconds)
        return CpuTimes(user=50 * scale, idle=40 * scale, steal=10 * scale, guest=20 * scale)

    own = iter([ProcessTimes(0, 0, 0, 0), ProcessTimes(4, 3, 2, 1)])
    monkeypatch.setattr(cpu_contention.psutil, "cpu_times", cpu_times)
    monkeypatch.setattr(cpu_contention.psutil.Process, "cpu_times", lambda _: next(own))
    assert BackgroundLoad().share() == pytest.approx(0.5)
