"""Which repetitions count."""

import time
from pathlib import Path

import pytest

from edge_medgemma.runtime.profiling import meter as meter_module
from edge_medgemma.runtime.profiling.meter import Limits, Meter
from edge_medgemma.runtime.profiling.others import OtherLoad
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


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """What others take in one window after the other; at the end nothing."""
    waiting: list[float | None] = []
    monkeypatch.setattr(OtherLoad, "share", lambda _: waiting.pop(0) if waiting else 0.0)
    monkeypatch.setattr(meter_module, "WINDOW_S", 0.0)
    return waiting


PATIENT = Limits(repeat=3, row_minimum_s=0.025, row_maximum_s=9.0)
NO_POWER = PowerReaders((), ())


def measure(limits: Limits, power: PowerReaders = NO_POWER, sleep_s: float = 0.0):
    """Repetitions give 0, 1, 2 ..."""
    numbers = iter(range(1000))

    def action() -> int:
        time.sleep(sleep_s)
        return next(numbers)

    return Meter(limits, power).measure(ROW, action, lambda: time.sleep(0.01))


def test_repetitions_while_others_worked_are_set_aside(shares) -> None:
    shares += [0.0, 0.5, 0.0, 0.6]
    measured = measure(PATIENT, sleep_s=0.01)
    assert measured.results == (0, 2, 4)
    assert measured.row.set_aside == 2 and measured.row.others_share == 0.0


def test_where_others_never_stop_the_row_says_so(shares) -> None:
    shares += [0.5] * 100
    measured = measure(Limits(repeat=3, row_minimum_s=0.0, row_maximum_s=9.0))
    assert measured.row.is_disturbed and measured.row.others_share == 0.5
    assert measured.row.latency is not None and measured.row.latency.n >= 3


def test_a_machine_that_does_not_tell_disturbs_nothing(shares) -> None:
    shares += [None] * 3
    row = measure(Limits(repeat=3, row_minimum_s=0.0, row_maximum_s=9.0)).row
    assert row.others_share is None and not row.is_disturbed


def test_warm_up_is_apart_and_energy_is_per_repetition(shares, monkeypatch) -> None:
    monkeypatch.setattr(meter_module, "IDLE_S", 0.0)
    row = measure(Limits(5, 0.0, 9.0), PowerReaders((FakePower(),), ())).row
    assert row.warm_up_s is not None and row.warm_up_s >= 0.01
    assert row.latency is not None and row.latency.max_s < 0.01
    assert [energy.joules for energy in row.energy] == [10.0 / 5]


def test_a_long_row_is_not_repeated_beyond_its_share(shares) -> None:
    meter = Meter(Limits(repeat=10, row_minimum_s=0.0, row_maximum_s=0.05), NO_POWER)
    row = meter.measure(ROW, lambda: time.sleep(0.02)).row
    assert row.latency is not None and row.latency.n == 2


def write_stat(path: Path, user: int, idle: int, steal: int) -> Path:
    path.write_text(f"cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1 0 0\n")
    return path


def test_others_share_counts_stolen_time(tmp_path: Path) -> None:
    stat = write_stat(tmp_path / "stat", 1000, 1000, 0)
    load = OtherLoad(stat)
    write_stat(stat, 20_000, 71_000, 10_000)
    assert load.share() == pytest.approx(0.29, abs=0.01)


def test_without_proc_nobody_knows(tmp_path: Path) -> None:
    assert OtherLoad(tmp_path / "none").share() is None
