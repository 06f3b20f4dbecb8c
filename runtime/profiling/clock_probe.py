"""Is the machine as fast as it was? A fixed piece of work, done beside every measurement.

A neighbour on the same host, a full power budget or heat slow a program down without any trace in
the processor times that its own system tells.
"""

import time
from typing import Any

import numpy as np

from edge_medgemma.runtime.backends.onnx_writer import product_model
from edge_medgemma.runtime.profiling.memory_bandwidth import MemoryRead

SIDE = 1024
"""Of the square matrices: about 10 ms on two cores, long beside the waking of threads."""
PROBES = 3
"""The best of so many counts: a single one may be interrupted."""
FIRST_PROBES = 20

READ_BYTES = 128 * 2**20
"""More than most processors' caches hold: 2 to 4 ms on two cores."""
READ_PROBES = 10
"""More than of the product: threads that are woken for 2 ms seldom begin together."""


class Pace:
    """The machine's speed of the moment: of products against the best of this run, of memory."""

    def __init__(self, threads: int) -> None:
        """Probes often at first, to know the machine at its best."""
        self._matrix = np.ones((SIDE, SIDE), np.float32)
        self._session = _open_session(self._matrix, threads)
        self._memory = MemoryRead(threads, READ_BYTES)
        self.best_product_s = self._product_s(FIRST_PROBES)

    def fraction(self) -> float:
        """1 where products are at their best, 0.5 where they take twice as long."""
        product_s = self._product_s(PROBES)
        self.best_product_s = min(self.best_product_s, product_s)
        return self.best_product_s / product_s

    def read_gb_per_s(self) -> float:
        """What all threads of the run together read from memory: 10^9 bytes a second.

        There is no best to compare it with: where it is higher, small engines are slower.
        """
        return self._memory.bytes_per_s(READ_PROBES) / 1e9

    def close(self) -> None:
        """End the threads of the probes."""
        self._session = None
        self._memory.close()

    def _product_s(self, count: int) -> float:
        best_s = float("inf")
        for _ in range(count):
            start_s = time.perf_counter()
            if self._session is None:
                self._matrix @ self._matrix
            else:
                self._session.run(None, {"a": self._matrix})
            best_s = min(best_s, time.perf_counter() - start_s)
        return best_s


def _open_session(matrix: Any, threads: int) -> Any:
    """A product in onnxruntime, whose idle threads sleep at once; None where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(product_model(matrix), options, providers=providers)
