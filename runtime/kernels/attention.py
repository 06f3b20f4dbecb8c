"""Attention of the vision tower, compiled here: where its time goes on a CPU without a matrix unit.

Scores of 4096 patches are 270 million numbers a layer. OpenVINO spends nearly as long on their
exponentials as on its products; the kernel hides one behind the other.
"""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.host import usable_cores

try:
    from edge_medgemma.runtime.kernels import attention_kernel
except ImportError:  # no C compiler was there when the package was installed
    attention_kernel = None  # type: ignore[assignment]

ROWS_PER_CALL = 1024
"""Rows of a head in one call: few enough that threads end at about the same time."""


def kernel_absence() -> str | None:
    """Why the kernel is not used here; None where it is."""
    if attention_kernel is None:
        return "no attention kernel: there was no C compiler at installation"
    if not attention_kernel.supported():
        return "no attention kernel: it is for processors with AVX2 and without AMX"
    return None


def attention_in_use() -> str:
    """Whether it computes, or why not: the numbers of a tower depend on it."""
    return kernel_absence() or "with the attention kernel, scores in int16"


class AttentionKernel:
    """Softmax attention over all rows on a pool of threads; buffers of packed keys are reused."""

    def __init__(self, threads: int | None) -> None:
        """Start the threads: now, because OpenVINO binds those that start within it to one core."""
        count = threads or usable_cores()
        self._pool = ThreadPoolExecutor(count, "attention")
        started = Barrier(count)
        list(self._pool.map(lambda _: started.wait(), range(count)))
        self._packed = np.empty((2, 0, 0), np.uint32)
        self._failure: BaseException | None = None

    def attend(self, joined: NDArray[np.float32], heads: int, out: NDArray[np.float32]) -> None:
        """Attention of every row to all rows, in products of int16.

        Args:
            joined: [rows, 3 * hidden], query, key and value of all heads side by side; contiguous
            heads: that divide hidden, into at most the kernel's LARGEST_HEAD each
            out: [rows, hidden]; contiguous; written
        """
        rows, hidden = out.shape
        shape = (2, heads, attention_kernel.packed_size(rows, hidden // heads))
        if self._packed.shape != shape:
            self._packed = np.empty(shape, np.uint32)
        keys, values = self._packed

        def pack(head: int) -> bool:
            return attention_kernel.pack(joined, keys[head], values[head], rows, heads, head)

        def attend(part: tuple[int, int]) -> None:
            head, first = part
            last = min(first + ROWS_PER_CALL, rows)
            where = rows, heads, head, is_int8[head]
            attention_kernel.attend(joined, keys[head], values[head], out, *where, first, last)

        parts = [(head, row) for head in range(heads) for row in range(0, rows, ROWS_PER_CALL)]
        is_int8 = list(self._pool.map(pack, range(heads)))
        list(self._pool.map(attend, parts))

    def attend_or_keep(
        self, joined: NDArray[np.float32], heads: int, out: NDArray[np.float32]
    ) -> bool:
        """`attend` for a caller that cannot raise; False and the exception is kept.

        Until `raise_failure` nothing more is computed.
        """
        if self._failure is None:
            try:
                self.attend(joined, heads, out)
            except BaseException as error:  # noqa: BLE001 - Ctrl-C is one
                self._failure = error
        return self._failure is None

    def raise_failure(self) -> None:
        """Raise what `attend_or_keep` kept, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End the threads and free the buffers."""
        self._pool.shutdown(wait=False)
        self._packed = np.empty((2, 0, 0), np.uint32)
