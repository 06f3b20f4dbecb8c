"""Which repetitions count."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from edge_medgemma.runtime.profiling import meter as meter_module
from edge_medgemma.runtime.profiling.cpu_contention import BackgroundLoad
from edge_medgemma.runtime.profiling.meter import Limits, Meter
from edge_medgemma.runtime.profiling.power import PowerReaders
from edge_medgemma.runtime.profiling.record import Layer, Row

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
    monkeypatch.setattr(meter_module, "WINDOW_S", 0.0)
    return clock


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """What others take in one window after the other; at the end nothing."""
    waiting: list[float | None] = []
    monkeypatch.setattr(BackgroundLoad, "share", lambda _: waiting.pop(0) if waiting else 0.0)
    return waiting


PATIENT = Limits(repeat=3, row_minimum_s=0.025, row_maximum_s=9.0)
NO_POWER = PowerReaders((), ())


class FakePace:
    """A machine at its best that reads 60 GB/s, but for what is given."""

    def __init__(self, *fractions: float, reads: tuple[float, ...] = ()) -> None:
        self._fractions = list(fractions)
        self._reads = list(reads)

    def fraction(self) -> float:
        return self._fractions.pop(0) if self._fractions else 1.0

    def read_gb_per_s(self) -> float:
        return self._reads.pop(0) if self._reads else 60.0


def measure(
    clock: FakeTime,
    limits: Limits,
    power: PowerReaders = NO_POWER,
    pace: FakePace | None = None,
    *,
    is_compute_bound: bool = False,
):
    """Repetitions of 10 ms give 0, 1, 2 ...; the warm-up takes a second."""
    numbers = iter(range(1000))

    def action() -> int:
        clock.sleep(0.01)
        return next(numbers)

    meter = Meter(limits, power, pace or FakePace())
    return meter.measure(ROW, action, lambda: clock.sleep(1.0), is_compute_bound=is_compute_bound)


def test_repetitions_while_others_worked_are_set_aside(clock, shares) -> None:
    shares += [0.0, 0.5, 0.0, 0.6]
    measured = measure(clock, PATIENT)
    assert measured.results == (0, 2, 4)
    assert measured.row.num_rejected == 2 and measured.row.others_share == 0.0


def test_repetitions_of_a_slow_machine_are_set_aside(clock, shares) -> None:
    measured = measure(clock, PATIENT, pace=FakePace(1.0, 1.0, 0.95, 0.5, 0.6, 1.0))
    assert measured.results == (0, 3, 4)
    assert measured.row.pace == 1.0


def test_repetitions_at_another_pace_of_memory_than_most_are_set_aside(clock, shares) -> None:
    reads = (38.0, 40.0, 61.0, 66.0, 64.0, 40.0, 60.0, 60.0)
    measured = measure(clock, PATIENT, pace=FakePace(reads=reads))
    assert measured.results == (1, 3, 4)
    assert measured.row.num_rejected == 2 and not measured.row.is_disturbed
    assert measured.row.read_gb_per_s == 60.0


def test_a_disturbed_repetition_has_no_say_in_what_pace_is_usual(clock, shares) -> None:
    shares += [0.5] * 4
    measured = measure(clock, PATIENT, pace=FakePace(reads=(30.0,) * 8))
    assert measured.results == (4, 5, 6) and measured.row.read_gb_per_s == 60.0


def test_a_row_that_saw_the_pace_of_memory_change_each_time_says_so(clock, shares) -> None:
    row = measure(clock, PATIENT, pace=FakePace(reads=(40.0, 64.0) * 50)).row
    assert row.is_disturbed and row.pace == 40.0 / 64.0


def test_the_pace_of_memory_is_nothing_to_arithmetic_but_to_short_operations(clock, shares) -> None:
    def read_gb_per_s(limits: Limits, is_compute_bound: bool) -> float | None:
        return measure(clock, limits, is_compute_bound=is_compute_bound).row.read_gb_per_s

    short = replace(PATIENT, has_short_operations=True)
    assert read_gb_per_s(PATIENT, is_compute_bound=True) is None
    assert read_gb_per_s(PATIENT, is_compute_bound=False) == 60.0
    assert read_gb_per_s(short, is_compute_bound=True) == 60.0


def test_where_others_never_stop_the_row_says_so(clock, shares) -> None:
    shares += [0.5] * 100
    row = measure(clock, PATIENT).row
    assert row.is_disturbed and row.others_share == 0.5 and row.pace == 1.0
    assert row.latency is not None and row.latency.n >= PATIENT.repeat


def test_a_machine_that_does_not_tell_disturbs_nothing(clock, shares) -> None:
    shares += [None] * 3
    row = measure(clock, PATIENT).row
    assert row.others_share is None and not row.is_disturbed


def test_warm_up_is_apart_and_energy_is_per_repetition(clock, shares) -> None:
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
    clock, shares, limits: Limits, expected: int
) -> None:
    row = measure(clock, limits).row
    assert row.latency is not None and row.latency.n == expected


def write_stat(path: Path, user: int, idle: int, steal: int) -> Path:
    path.write_text(f"cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1 0 0\n")
    return path


def test_others_share_counts_stolen_time(tmp_path: Path) -> None:
    stat = write_stat(tmp_path / "stat", 1000, 1000, 0)
    load = BackgroundLoad(stat)
    write_stat(stat, 20_000, 71_000, 10_000)
    assert load.share() == pytest.approx(0.29, abs=0.01)


def test_one_s_own_time_is_nobody_else_s(tmp_path: Path, monkeypatch) -> None:
    own_s = iter([0.0, 0.0, 150.0])
    monkeypatch.setattr(time, "process_time", lambda: next(own_s))
    stat = write_stat(tmp_path / "stat", 1000, 1000, 0)
    load = BackgroundLoad(stat)
    write_stat(stat, 21_000, 21_000, 0)
    assert load.share() == pytest.approx(0.5, abs=0.01)
    assert load.share() == pytest.approx(0.125, abs=0.01)


def test_without_proc_nobody_knows(tmp_path: Path) -> None:
    assert BackgroundLoad(tmp_path / "none").share() is None
