"""Integers for weight-only quantisation, chosen by the error of the product: GPTQ."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.search.gram import Gram
from edge_medgemma.runtime.host import usable_cores

Array = NDArray[np.float32]

Rounding = Callable[[Array, Array], tuple[NDArray[np.int8], Array]]
"""Function of weights [K, N] and the importance [K] of their inputs to integers [K, N] and scales
[K / block, N], each weight by itself."""

DAMPINGS = (0.1, 0.3, 1.0)
"""Shares of the mean diagonal added to it. GPTQ's own is 0.01 (https://arxiv.org/abs/2210.17323); with
a few thousand rows, more loses less on text that was not looked at."""

LAZY_ROWS = 128
"""Rows after which the updates reach the rest of the matrix, as in GPTQ."""


def gptq(
    gram: Gram, weight: Array, rounding: Rounding, limits: tuple[int, int], block_size: int
) -> tuple[NDArray[np.int8], Array]:
    """Integers [K, N] and scales [K / block_size, N], each row's rounding error made good by
    the rows after it; the plain rounding where that has the smaller error after all.

    Args:
        gram: second moments of the input [.., K]
        weight: [K, N]
        rounding: sets the scale of each block
        limits: least and largest integer
        block_size: rows that share a scale
    """
    nearest = rounding(weight, np.square(gram.root_mean_square))
    width = gram.blocks.shape[1]
    if width % block_size:
        return nearest
    found = [
        _rows_of_block(block, weight[start : start + width], rounding, limits, block_size)
        for start, block in zip(range(0, len(weight), width), gram.blocks, strict=True)
    ]
    integers = np.concatenate([part[0] for part in found])
    scales = np.concatenate([part[1] for part in found])
    gained = gram.error(dequantize(integers, scales) - weight)
    return (integers, scales) if gained < gram.error(dequantize(*nearest) - weight) else nearest


def dequantize(integers: NDArray[np.int8], scales: Array) -> Array:
    """[K, N] float32 of integers [K, N] and scales [B, N]."""
    blocks = integers.reshape(len(scales), -1, integers.shape[1]).astype(np.float32)
    values: Array = (blocks * scales[:, None]).reshape(integers.shape)
    return values


def _rows_of_block(
    second_moments: Array,
    weight: Array,
    rounding: Rounding,
    limits: tuple[int, int],
    block_size: int,
) -> tuple[NDArray[np.int8], Array]:
    """Rows whose inputs have these moments; their columns are independent, and shared out to threads."""
    factor = _inverse_factor(second_moments)
    importance = np.diagonal(second_moments).copy()

    def columns(part: Array) -> tuple[NDArray[np.int8], Array]:
        return _gptq_block(factor, importance, part, rounding, limits, block_size)

    threads = usable_cores()
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(columns, np.array_split(weight, threads, axis=1)))
    return np.hstack([part[0] for part in found]), np.hstack([part[1] for part in found])


def _gptq_block(
    factor: Array,
    importance: Array,
    weight: Array,
    rounding: Rounding,
    limits: tuple[int, int],
    block_size: int,
) -> tuple[NDArray[np.int8], Array]:
    rows, columns = weight.shape
    weight = weight.copy()
    integers = np.empty((rows, columns), np.int8)
    scales = np.empty((rows // block_size, columns), np.float32)
    for start in range(0, rows, LAZY_ROWS):
        stop = min(start + LAZY_ROWS, rows)
        errors = np.empty((stop - start, columns), np.float32)
        for row in range(start, stop):
            if row % block_size == 0:
                block = weight[row : row + block_size]
                if row + block_size > stop:
                    # The rows beyond `stop` have not had this stretch's updates yet.
                    block = block.copy()
                    block[stop - row :] -= (
                        factor[start:row, stop : row + block_size].T @ errors[: row - start]
                    )
                _, scale = rounding(block, importance[row : row + block_size])
                scales[row // block_size] = scale[0]
            block_scale = scales[row // block_size]
            integers[row] = np.clip(np.rint(weight[row] / block_scale), *limits)
            error = (weight[row] - integers[row] * block_scale) / factor[row, row]
            weight[row + 1 : stop] -= np.outer(factor[row, row + 1 : stop], error)
            errors[row - start] = error
        weight[stop:] -= factor[start:stop, stop:].T @ errors
    return integers, scales


def _inverse_factor(second_moments: Array) -> Array:
    """U upper triangular with Uᵀ U the inverse of the damped second moments."""
    matrix = second_moments.astype(np.float64)
    diagonal = np.einsum("ii->i", matrix)
    mean = float(diagonal.mean()) or 1.0
    diagonal[diagonal == 0] = mean
    # Few rows leave the matrix singular, and its stored form is rounded: damp until it factors.
    for damping in DAMPINGS:
        damped = matrix + np.eye(len(matrix)) * (damping * mean)
        try:
            # The order reversed gives the upper factor of the inverse without a second inverse.
            lower = np.linalg.cholesky(damped[::-1, ::-1])
        except np.linalg.LinAlgError:
            continue
        factor: Array = np.linalg.inv(lower)[::-1, ::-1].astype(np.float32)
        return factor
    return np.eye(len(matrix), dtype=np.float32)  # compensates nothing: rounds to nearest
