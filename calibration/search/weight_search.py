"""Integers for weight-only quantisation, chosen by the error of the product: AWQ scales and GPTQ."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.search.gram import Gram
from edge_medgemma.calibration.search.smoothing import SEARCH_COLUMNS, importance_scale

Array = NDArray[np.float32]

Rounding = Callable[[Array], tuple[NDArray[np.int8], Array]]
"""[K, N] to integers [K, N] and scales [K / block, N], to nearest."""

EXPONENTS = (0.0, 0.15, 0.3, 0.45, 0.6)
DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Shares of the mean diagonal added to it, the first GPTQ's own (https://arxiv.org/abs/2210.17323)."""

LAZY_ROWS = 128
"""Rows after which the updates reach the rest of the matrix, as in GPTQ."""


def choose_importance(gram: Gram, importance: Array, weight: Array, rounding: Rounding) -> Array:
    """The AWQ scale [K] with the least output error after rounding; ones if none helps.

    Args:
        gram: second moments of the input
        importance: [K], magnitude of each channel; equal where channels must share a scale
        weight: [K, N]
        rounding: to nearest
    """
    stride = -(-weight.shape[1] // SEARCH_COLUMNS)
    some = np.ascontiguousarray(weight[:, ::stride])
    best, best_error = np.ones(len(weight), np.float32), np.inf
    for exponent in EXPONENTS:
        scale = importance_scale(importance, exponent)
        restored = dequantize(*rounding(some * scale[:, None])) / scale[:, None]
        error = gram.error(restored - some)
        if error < best_error:
            best, best_error = scale, error
    return best


def gptq(
    gram: Gram, weight: Array, rounding: Rounding, largest: int, block_size: int
) -> tuple[NDArray[np.int8], Array]:
    """Integers [K, N] and scales [K / block_size, N], each row's rounding error made good by
    the rows after it; round-to-nearest where that has the smaller error after all.

    Args:
        gram: second moments of the input [.., K]
        weight: [K, N]
        rounding: the round-to-nearest that sets the scale of each block
        largest: integers reach from -largest to largest
        block_size: rows that share a scale
    """
    nearest = rounding(weight)
    width = gram.blocks.shape[1]
    if width % block_size:
        return nearest
    parts = [
        _gptq_block(block, weight[start : start + width], rounding, largest, block_size)
        for start, block in zip(range(0, len(weight), width), gram.blocks, strict=True)
    ]
    integers = np.concatenate([part[0] for part in parts])
    scales = np.concatenate([part[1] for part in parts])
    gained = gram.error(dequantize(integers, scales) - weight)
    return (integers, scales) if gained < gram.error(dequantize(*nearest) - weight) else nearest


def dequantize(integers: NDArray[np.int8], scales: Array) -> Array:
    """[K, N] float32 of integers [K, N] and scales [B, N]."""
    blocks = integers.reshape(len(scales), -1, integers.shape[1]).astype(np.float32)
    values: Array = (blocks * scales[:, None]).reshape(integers.shape)
    return values


def _gptq_block(
    second_moments: Array, weight: Array, rounding: Rounding, largest: int, block_size: int
) -> tuple[NDArray[np.int8], Array]:
    factor = _inverse_factor(second_moments)
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
                _, scale = rounding(block)
                scales[row // block_size] = scale[0]
            block_scale = scales[row // block_size]
            integers[row] = np.clip(np.rint(weight[row] / block_scale), -largest, largest)
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
