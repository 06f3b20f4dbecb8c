"""Integers and scales of weights in blocks along the input axis: value = scale * integer.

Scales are bfloat16 numbers, for every target; engines for the CPU store them in so many bytes. Integers
are chosen by the rounded scale, so that it is a grid as good as the one beside it.

8 bits are rounded to nearest on a symmetric grid. The 16 values of 4 bits are searched: the largest
weight of a block, whatever its sign, lies near -8, and of a few steps around that the one is taken
whose squared error is least, each input weighted by how large it is.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.bfloat16 import rounded_to_bfloat16
from edge_medgemma.runtime.host import usable_cores

Array = NDArray[np.float32]

BITS = {"int8": 8, "int4": 4}

INT8_LARGEST = 127
INT4_LOWEST, INT4_LARGEST = -8, 7

STEP_SHARES = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8)
"""Steps that are tried, in shares of the one that reaches the largest weight."""

PART_BYTES = 1 << 20
"""Float32 bytes that a thread searches at a time: they stay in its cache."""


def quantize_blocks(
    values: Array,
    kind: str,
    block_size: int,
    *,
    is_signed: bool = True,
    is_searched: bool = True,
) -> tuple[NDArray[np.int8], Array]:
    """Integers [N, K] and scales [N, K / block_size] of `values` [N, K]; a zero block has scale 1.

    Scales are float32 that bfloat16 holds exactly.

    Args:
        values: weights of N outputs
        kind: `int8`, integers in ±127; or `int4`, integers in -8..7
        block_size: consecutive inputs that share a scale
        is_signed: whether a scale of 4 bits may be negative
        is_searched: whether several steps are tried for 4 bits
    """
    outputs, inputs = values.shape
    blocks = values.reshape(outputs, inputs // block_size, block_size)
    if kind == "int8":
        return _nearest_int8(blocks)
    shares = STEP_SHARES if is_searched else STEP_SHARES[:1]
    integers = np.empty((outputs, inputs), np.int8)
    scales = np.empty(blocks.shape[:2], np.float32)
    height = max(PART_BYTES // (4 * inputs), 1)

    def quantize(first: int) -> None:
        part = blocks[first : first + height]
        step = searched_step(part, None, is_signed=is_signed, shares=shares)
        rounded = round_int4(part, step)
        integers[first : first + height] = rounded.reshape(len(part), inputs)
        scales[first : first + height] = step[..., 0]

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(quantize, range(0, outputs, height)))
    return integers, scales


def searched_step(
    blocks: Array,
    importance: Array | None,
    *,
    is_signed: bool = True,
    shares: tuple[float, ...] = STEP_SHARES,
) -> Array:
    """Steps [.., 1] of 4-bit blocks [.., block] with the least weighted squared error.

    For each grid tried, the step is the one that fits its integers best; only then are they judged.
    `importance` is the mean square of the inputs, broadcast to `blocks`; None where it is not known.
    """
    first = _reaching_step(blocks, is_signed=is_signed)
    scaled = blocks / first  # within -8..8, so that no sum overflows
    weighted = scaled if importance is None else scaled * importance
    best = np.ones_like(first)
    best_gain = np.zeros_like(first)
    for share in shares:
        integers = _clipped(scaled * np.float32(1 / share))
        product = (integers * weighted).sum(axis=-1, keepdims=True)
        np.square(integers, out=integers)
        if importance is not None:
            integers *= importance
        norm = integers.sum(axis=-1, keepdims=True)
        step = product / np.maximum(norm, np.finfo(np.float32).tiny)
        gain = product * step  # by so much the squared error is below that of zeros
        is_better = gain > best_gain
        best = np.where(is_better, step, best)
        best_gain = np.where(is_better, gain, best_gain)
    return rounded_to_bfloat16(_normal(best * first))


def round_int4(values: Array, step: Array) -> NDArray[np.int8]:
    """The nearest of the 16 integers."""
    return _clipped(values / step).astype(np.int8)


def _clipped(scaled: Array) -> Array:
    """The nearest integers in the range of 4 bits, in place."""
    np.rint(scaled, out=scaled)
    return np.clip(scaled, INT4_LOWEST, INT4_LARGEST, out=scaled)


def _reaching_step(blocks: Array, *, is_signed: bool) -> Array:
    """The step at which the largest weight of a block is -8 or, where steps are positive, within -8..7."""
    highest = blocks.max(axis=-1, keepdims=True)
    lowest = blocks.min(axis=-1, keepdims=True)
    if is_signed:
        return _normal(np.where(-lowest >= highest, lowest, highest) / np.float32(INT4_LOWEST))
    return _normal(np.maximum(highest / INT4_LARGEST, lowest / np.float32(INT4_LOWEST)))


def _normal(step: Array) -> Array:
    """1 in place of steps so small that nothing is left of their precision."""
    is_normal = np.abs(step) > np.finfo(np.float32).tiny
    normal: Array = np.where(is_normal, step, np.float32(1)).astype(np.float32)
    return normal


def _nearest_int8(blocks: Array) -> tuple[NDArray[np.int8], Array]:
    """Without -128 no weight changes sign or grows."""
    largest = np.maximum(blocks.max(axis=2), -blocks.min(axis=2))
    scale = np.where(largest > 0, largest / np.float32(INT8_LARGEST), np.float32(1))
    # A subnormal block rounds its scale to zero or so: clip what the division then gives.
    scale = rounded_to_bfloat16(np.maximum(scale, np.finfo(np.float32).tiny))
    scaled = blocks / scale[:, :, None]
    np.rint(scaled, out=scaled)
    np.clip(scaled, -INT8_LARGEST, INT8_LARGEST, out=scaled)
    return scaled.astype(np.int8).reshape(len(blocks), -1), scale
