"""What the multiply instructions of the kernels' level can do: loops over registers alone."""

import time
from concurrent.futures import ThreadPoolExecutor

from edge_medgemma.runtime.kernels.level import cpu_kernels, kernel_level

BURST_S = 1e-3
BURSTS = 40
"""Short and many: other programs leave some of them undisturbed."""

FIRST_ROUNDS = 1000


def kernel_peaks(threads: int) -> dict[str, float]:
    """FLOP a second by the type of numbers, all threads at once; empty where no kernel computes."""
    if kernel_level() is None:
        return {}
    with ThreadPoolExecutor(threads) as pool:
        return {
            name: sum(pool.map(_best, [index] * threads, [flop] * threads))
            for index, (name, flop) in enumerate(cpu_kernels.peak_loops())
        }


def _best(index: int, flop: float) -> float:
    """FLOP a second of this thread's best burst."""
    rounds, seconds = FIRST_ROUNDS, _burst_s(index, FIRST_ROUNDS)
    while seconds < BURST_S:
        rounds *= 2
        seconds = _burst_s(index, rounds)
    return rounds * flop / min(_burst_s(index, rounds) for _ in range(BURSTS))


def _burst_s(index: int, rounds: int) -> float:
    begin_s = time.perf_counter()
    cpu_kernels.run_peak_loop(index, rounds)
    return time.perf_counter() - begin_s
