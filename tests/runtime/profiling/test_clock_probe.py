import time

import numpy as np
import pytest

from edge_medgemma.runtime.profiling.clock_probe import Pace
from edge_medgemma.runtime.profiling.memory_bandwidth import MemoryRead


def test_a_slower_product_is_a_slower_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    products_s = iter([0.003, 0.006, 0.0015, 0.003])
    monkeypatch.setattr(Pace, "_product_s", lambda *_: next(products_s))
    pace = Pace(2)
    assert [pace.fraction() for _ in range(3)] == [0.5, 1.0, 0.5]
    assert pace.best_product_s == 0.0015


def test_the_probes_take_milliseconds() -> None:
    pace = Pace(2)
    assert 0 < pace.fraction() <= 1
    assert 1e-5 < pace.best_product_s < 1
    assert 0.1 < pace.read_gb_per_s() < 10_000
    pace.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_all_of_memory_is_read_by_all_threads_and_the_best_round_counts(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(np, "max", lambda part: sizes.append(part.nbytes))
    clock_s = iter([0.0, 4.0, 10.0, 12.0, 20.0, 23.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock_s))
    memory = MemoryRead(threads, 4000)
    assert memory.bytes_per_s(3) == 4000 / 2
    memory.close()
    assert len(sizes) == 3 * threads and sum(sizes) == 3 * 4000
