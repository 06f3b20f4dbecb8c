"""Ranges of activations: how far a symmetric int8 grid reaches, and what the choice costs.

Every method sees the magnitudes of one tensor and names the largest value that keeps its place;
what is larger is clipped. Which method wins differs from tensor to tensor, so the error of the
product decides (`calibration.search.smoothing`), not the method's own criterion.
"""

import numpy as np
from numpy.typing import NDArray

LEVELS = 127
"""Levels on each side of zero; -128 stays unused, as TensorRT's symmetric int8 wants it."""

HISTOGRAM_BINS = 2048
"""Bins of onnxruntime's and TensorRT's calibrators."""

PERCENTILES = (99.9, 99.99, 99.999)
MSE_SHARES = tuple(np.linspace(0.3, 1.0, 29).tolist())
"""Shares of the largest value that the MSE search tries."""


def candidate_ranges(magnitudes: NDArray[np.float32], largest: float) -> dict[str, float]:
    """Method -> range of a tensor.

    Args:
        magnitudes: absolute values of a sample of it, any shape
        largest: absolute value of all of it; the sample may have missed it
    """
    flat = magnitudes.ravel()
    ranges = {"min-max": largest}
    for percentile, value in zip(PERCENTILES, np.percentile(flat, PERCENTILES), strict=True):
        ranges[f"percentile {percentile:g}"] = float(value)
    ranges["entropy"] = entropy_range(flat)
    ranges["mse"] = mse_range(flat)
    return {method: value for method, value in ranges.items() if value > 0} or {"min-max": 1.0}


def mse_range(magnitudes: NDArray[np.float32]) -> float:
    """The range with the least mean squared rounding and clipping error."""
    counts, centres = _histogram(magnitudes)
    limits = centres[-1] * np.array(MSE_SHARES)
    scales = limits[:, None] / LEVELS
    rounded = np.minimum(np.rint(centres / scales), LEVELS) * scales
    errors = ((rounded - centres) ** 2) @ counts
    return float(limits[errors.argmin()])


def entropy_range(magnitudes: NDArray[np.float32]) -> float:
    """The range whose quantised histogram diverges least from the clipped one.

    TensorRT's criterion (Migacz, "8-bit Inference with TensorRT", GTC 2017): the clipped mass
    joins the last bin of the reference, and the 128-level histogram is spread over its bins.
    """
    counts, centres = _histogram(magnitudes)
    levels = LEVELS + 1
    best, best_divergence = HISTOGRAM_BINS, np.inf
    for stop in range(levels, HISTOGRAM_BINS + 1, 16):
        reference = counts[:stop].copy()
        occupied = reference > 0
        reference[-1] += counts[stop:].sum()
        level = np.arange(stop) * levels // stop
        mass = np.bincount(level, counts[:stop], levels)
        places = np.bincount(level, occupied, levels)
        spread = np.where(occupied, (mass / np.maximum(places, 1))[level], 0.0)
        divergence = _divergence(reference, spread)
        if divergence < best_divergence:
            best, best_divergence = stop, divergence
    width = centres[1] - centres[0]
    return float(best * width)


def round_to_grid(values: NDArray[np.float32], limit: float) -> NDArray[np.float32]:
    """`values` as an int8 tensor of this range gives them back."""
    scale = np.float32(limit / LEVELS)
    rounded: NDArray[np.float32] = np.clip(np.rint(values / scale), -LEVELS, LEVELS) * scale
    return rounded


def _histogram(
    magnitudes: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    top = float(magnitudes.max(initial=0.0)) or 1.0
    counts, edges = np.histogram(magnitudes, HISTOGRAM_BINS, (0.0, top))
    return counts.astype(np.float64), (edges[:-1] + edges[1:]) / 2


def _divergence(reference: NDArray[np.float64], spread: NDArray[np.float64]) -> float:
    """KL(reference || spread); infinite where the spread misses mass."""
    if spread.sum() == 0:
        return float("inf")
    p, q = reference / reference.sum(), spread / spread.sum()
    seen = p > 0
    if (q[seen] <= 0).any():
        q = np.maximum(q, 1e-12)
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())
