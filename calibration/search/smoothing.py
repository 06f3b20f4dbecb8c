"""Moving the difficulty from activations into weights, exactly, and choosing how much by error.

A channel j of a linear layer's input is divided by s[j] and row j of its weights multiplied by it.
The division is folded into whoever makes the input, so the float model stays the same.
SmoothQuant (https://arxiv.org/abs/2211.10438) for W8A8, AWQ (https://arxiv.org/abs/2306.00978) for
weights alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.search.ranges import candidate_ranges, round_to_grid

Array = NDArray[np.float32]

EXPONENTS = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75)
"""Exponents tried; 0 moves nothing."""

LARGEST_MOVE = 64.0
"""Smoothing stays within this factor on either side: more would only trade one outlier for another."""

SEARCH_COLUMNS = 512
"""Output columns that a search looks at, spread over the matrix."""


@dataclass(frozen=True, slots=True)
class ActivationChoice:
    """Quantisation of the input of one linear layer, and what it costs on the sample."""

    scale: Array
    """[K], s; ones where smoothing does not help or has nowhere to go."""
    exponent: float
    method: str
    limit: float
    """Range of the smoothed input; its scale is limit / 127."""
    error: float
    """Squared error of the product over its squared norm."""
    plain_error: float
    """The same with min-max and no smoothing."""


def choose_activation(
    rows: Array, largest: Array, weight: Array, *, can_smooth: bool
) -> ActivationChoice:
    """The exponent and range with the least error of the product on sampled rows.

    Args:
        rows: [R, K] sample of the input
        largest: [K] largest magnitude of each channel over the whole input
        weight: [K, N]
        can_smooth: whether the producer of the input can take the division
    """
    weight = _some_columns(weight)
    expected = rows @ weight
    norm = float(np.square(expected, dtype=np.float64).sum()) or 1.0
    best: ActivationChoice | None = None
    plain_error = 0.0
    for exponent in EXPONENTS if can_smooth else (0.0,):
        scale = smooth_scale(largest, weight, exponent)
        smoothed = rows / scale
        rounded_weight = round_columns(weight * scale[:, None])
        ranges = candidate_ranges(np.abs(smoothed), float((largest / scale).max()))
        for method, limit in ranges.items():
            product = round_to_grid(smoothed, limit) @ rounded_weight
            error = float(np.square(product - expected, dtype=np.float64).sum()) / norm
            if exponent == 0 and method == "min-max":
                plain_error = error
            if best is None or error < best.error:
                best = ActivationChoice(scale, exponent, method, limit, error, 0.0)
    assert best is not None
    return ActivationChoice(
        best.scale, best.exponent, best.method, best.limit, best.error, plain_error
    )


def smooth_scale(largest: Array, weight: Array, exponent: float) -> Array:
    """s = largest^a / max|w|^(1-a), its geometric mean 1; dead channels keep 1."""
    if exponent == 0:
        return np.ones_like(largest)
    reach = np.abs(weight).max(axis=1)
    alive = (largest > 0) & (reach > 0)
    safe_largest, safe_reach = np.where(alive, largest, 1), np.where(alive, reach, 1)
    logarithm = exponent * np.log(safe_largest) - (1 - exponent) * np.log(safe_reach)
    return _centred(logarithm.astype(np.float32), alive)


def _centred(logarithm: Array, alive: NDArray[np.bool_]) -> Array:
    mean = logarithm[alive].mean() if alive.any() else 0.0
    limit = np.log(LARGEST_MOVE)
    scale = np.exp(np.clip(logarithm - mean, -limit, limit))
    return np.where(alive, scale, 1).astype(np.float32)


def round_columns(weight: Array) -> Array:
    """[K, N] on int8 grids, one symmetric grid for each column."""
    limit = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny)
    scale = limit / np.float32(127)
    rounded: Array = np.rint(weight / scale) * scale
    return rounded


def _some_columns(weight: Array) -> Array:
    stride = -(-weight.shape[1] // SEARCH_COLUMNS)
    return np.ascontiguousarray(weight[:, ::stride])
