import mmap
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.runtime.memory.peak_rss import PeakMemory

BYTES = 200 * 2**20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_a_peak_belongs_to_its_own_block() -> None:
    large, small = PeakMemory(), PeakMemory()
    with large.measure(), mmap.mmap(-1, BYTES) as block:  # what malloc has kept is no growth
        np.frombuffer(block, np.uint8)[::4096] = 1
    with small.measure():
        pass
    assert large.bytes is not None and small.bytes is not None
    assert large.method == small.method == "kernel"
    assert large.bytes - small.bytes > 0.9 * BYTES


def test_without_permission_to_reset_it_samples(tmp_path: Path) -> None:
    (tmp_path / "clear_refs").mkdir()  # not to be written, also for root
    memory = PeakMemory(tmp_path)
    with memory.measure():
        held = np.ones(BYTES, np.uint8)
        held.sum()
    assert memory.method == "sampled"
    assert memory.bytes is not None and memory.bytes > BYTES
