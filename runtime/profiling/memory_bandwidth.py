"""Reading memory with all threads of a run at once, as generation does."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class MemoryRead:
    """An array in one part per thread; numpy lets go of the interpreter lock."""

    def __init__(self, threads: int, size_bytes: int) -> None:
        """Touches every page; `size_bytes` is to be more than the caches hold."""
        self.size_bytes = size_bytes
        self._parts = np.array_split(np.ones(size_bytes // 4, np.float32), threads)
        self._pool = ThreadPoolExecutor(threads)

    def bytes_per_s(self, rounds: int) -> float:
        """The best of so many rounds: a single one may be interrupted."""
        best_s = float("inf")
        for _ in range(rounds):
            start_s = time.perf_counter()
            list(self._pool.map(np.max, self._parts))
            best_s = min(best_s, time.perf_counter() - start_s)
        return self.size_bytes / best_s

    def close(self) -> None:
        """End the threads and give the array back."""
        self._pool.shutdown()
        self._parts = []
