import pytest

from edge_medgemma.runtime.profiling.pace import Pace


def test_a_slower_probe_is_a_slower_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = iter([(0.003, 0.002), (0.006, 0.002), (0.003, 0.004), (0.0015, 0.002)])
    monkeypatch.setattr(Pace, "_probe", lambda *_: next(probes))
    pace = Pace(2)
    assert [pace.fraction() for _ in range(3)] == [0.5, 0.5, 1.0]
    assert pace.best_product_s == 0.0015


def test_slow_memory_does_not_slow_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = iter([(0.003, 0.002), (0.003, 0.004), (0.006, 0.002)])
    monkeypatch.setattr(Pace, "_probe", lambda *_: next(probes))
    pace = Pace(2)
    assert [pace.fraction(is_compute_bound=True) for _ in range(2)] == [1.0, 0.5]


def test_the_probe_takes_milliseconds() -> None:
    pace = Pace(2)
    assert 0 < pace.fraction() <= 1
    assert 1e-5 < pace.best_product_s < 1
    pace.close()
