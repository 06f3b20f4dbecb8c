"""Is the machine as fast as it was? A fixed piece of work, done beside every measurement.

A neighbour on the same host, a full power budget or heat slow a program down without any trace in
the processor times that its own system tells.
"""

import time
from typing import Any

import numpy as np

from edge_medgemma.runtime.profiling.one_node import one_node_model

SIDE = 1024
"""Of the square matrices: about 10 ms on two cores, long beside the waking of threads."""
READ_BYTES = 64 * 2**20
"""More than most processors' caches hold: about 3 ms on one core."""
PROBES = 3
"""The best of so many counts: a single one may be interrupted."""
FIRST_PROBES = 20


class Pace:
    """Compares the machine's speed of the moment with the best of this run."""

    def __init__(self, threads: int) -> None:
        """Probes often at first, to know the machine at its best."""
        self._array = np.ones(READ_BYTES // 4, np.float32)
        self._matrix = np.ones((SIDE, SIDE), np.float32)
        self._session = _open_session(self._matrix, threads)
        self.best_product_s, self.best_read_s = self._probe(FIRST_PROBES)

    def fraction(self, *, is_compute_bound: bool = False) -> float:
        """1 where the machine is at its best, 0.5 where it takes twice as long.

        Reading memory does not count for what is bound by arithmetic: neighbours halve the bandwidth
        of a machine without slowing its products.
        """
        product_s, read_s = self._probe(PROBES)
        self.best_product_s = min(self.best_product_s, product_s)
        self.best_read_s = min(self.best_read_s, read_s)
        product, read = self.best_product_s / product_s, self.best_read_s / read_s
        return product if is_compute_bound else min(product, read)

    def close(self) -> None:
        """End the threads of the product."""
        self._session = None

    def _probe(self, count: int) -> tuple[float, float]:
        products_s, reads_s = [], []
        for _ in range(count):
            start_s = time.perf_counter()
            if self._session is None:
                self._matrix @ self._matrix
            else:
                self._session.run(None, {"a": self._matrix})
            middle_s = time.perf_counter()
            self._array.max()
            products_s.append(middle_s - start_s)
            reads_s.append(time.perf_counter() - middle_s)
        return min(products_s), min(reads_s)


def _open_session(matrix: Any, threads: int) -> Any:
    """A product in onnxruntime, whose idle threads sleep at once; None where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = one_node_model("MatMul", "", {"a": "float32"}, {"b": matrix}, "float32", {})
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
