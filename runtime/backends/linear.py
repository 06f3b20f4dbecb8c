"""The linear maps of 4-bit and 8-bit weights, compiled here, in place of onnxruntime's.

onnxruntime rearranges the weights of MatMulNBits at every start and multiplies many rows at half of
what the processor's 8-bit products allow. The kernel reads them as they lie in the engine's file; its
numbers are onnxruntime's but for the order of float32 sums.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.one_node import blocks_product_model

try:
    from edge_medgemma.runtime.backends import linear_kernel
except ImportError:  # no C compiler was there when the package was installed
    linear_kernel = None  # type: ignore[assignment]

LARGEST_DIFFERENCE = 1e-4
"""Of the largest output. Sums in another order leave 1e-6; a wrong weight leaves 1e-2."""

_INPUTS, _OUTPUTS, _BLOCK_SIZE = 256, 45, 128
_ROWS = (1, 23)
"""The kernel has a way for few rows and another for many."""


def linear_absence() -> str | None:
    """Why the kernel is not used here; None where it is."""
    if linear_kernel is None:
        return "no linear kernel: there was no C compiler at installation"
    if not linear_kernel.supported():
        return "no linear kernel: it is for processors with AVX512_VNNI"
    return _failure(linear_kernel.__file__)


def linear_in_use() -> str:
    """`with the linear kernel`, or why not: the last bits of a decoder's numbers depend on it."""
    return linear_absence() or "with the linear kernel"


def linear_library() -> str | None:
    """Path of the library that onnxruntime takes MatMulNBits from; None where it takes its own.

    An operator of a library stands before the one of the same name in onnxruntime.
    """
    return None if linear_absence() else linear_kernel.__file__


@cache
def _failure(library: str) -> str | None:
    """What is wrong with the kernel, tried beside onnxruntime's own on a few numbers."""
    try:
        import onnxruntime
    except ImportError:
        return "no linear kernel: onnxruntime is not installed"
    for bits in (4, 8):
        model = _probe_model(bits)
        for rows in _ROWS:
            x = np.random.default_rng(rows).standard_normal((rows, _INPUTS), np.float32)
            try:
                expected, given = (_product(onnxruntime, model, x, one) for one in (None, library))
            except Exception as error:  # noqa: BLE001 onnxruntime's exceptions share no base
                reason = str(error).splitlines()[0]
                return f"no linear kernel: onnxruntime does not take it ({reason})"
            difference = np.abs(given - expected).max() / np.abs(expected).max()
            if not difference <= LARGEST_DIFFERENCE:
                return (
                    f"no linear kernel: it differs from onnxruntime by {difference:.1e} of the "
                    f"largest number, {LARGEST_DIFFERENCE:.0e} is allowed"
                )
    return None


def _probe_model(bits: int) -> bytes:
    generator = np.random.default_rng(bits)
    blocks = _INPUTS // _BLOCK_SIZE
    shape = (_OUTPUTS, blocks, _BLOCK_SIZE * bits // 8)
    weights = generator.integers(0, 256, shape, np.uint8)
    return blocks_product_model(weights, generator.random(shape[:2], np.float32), bits)


def _product(
    onnxruntime: Any, model: bytes, x: NDArray[np.float32], library: str | None
) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if library is not None:
        options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    product: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return product
