"""Stacks whose slices mostly show nothing, such as air beyond the body."""

import numpy as np

from edge_medgemma.runtime.slicing.volume import Problem, SliceStack

MOST_EMPTY = 0.5
"""Share of empty slices from which on the median slice says nothing of the body."""


def empty_slices(stack: SliceStack) -> tuple[Problem, ...]:
    """The problem of a stack whose slices are mostly of one grey value each."""
    ranges = np.ptp(stack.pixels, axis=(1, 2))
    empty = int((ranges == 0).all(axis=-1).sum())
    if not len(stack.pixels) * MOST_EMPTY < empty < len(stack.pixels):
        return ()  # where all are, `constant_intensity` says so
    detail = f"{empty} of {len(stack.pixels)} slices are empty."
    return (Problem("empty_slices", detail),)
