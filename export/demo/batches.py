"""Slices to learn from, drawn in a process of their own while the network computes."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS, FRACTURE, HAEMORRHAGE, MASS_EFFECT
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.export.demo.images import SliceTargets, pixel_values, slice_targets

SLICES_DRAWN = 6
SLICES_KEPT = 4
"""Slices of each phantom; those that show something are kept more often."""
PREVALENCE = {HAEMORRHAGE: 0.4, MASS_EFFECT: 0.65, FRACTURE: 0.6}
"""Odds of each finding being drawn for the vision tower: the harder to see, the more often."""
MOST_FRACTURES = 5
"""Breaks in one skull: the more breaks, the more a slice teaches."""
TASKS_AHEAD = 4

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

Batch = tuple[torch.Tensor, SliceTargets]
"""Pixel values [N, 3, size, size] and what there is to see on them."""


def draw_ahead(draw: Callable[[_Task], _Result], tasks: Sequence[_Task]) -> Iterator[_Result]:
    """Results of `draw`, a function of a module, for each task, in their order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[_Result]] = deque()
        for task in tasks:
            waiting.append(pool.submit(draw, task))
            if len(waiting) > TASKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def draw_batch(seeds: Sequence[int]) -> Batch:
    """SLICES_KEPT slices of the phantom of each seed."""
    images, parts = [], []
    for seed in seeds:
        rng = np.random.default_rng((seed, 1))
        findings = frozenset(code for code in FINDINGS if rng.random() < PREVALENCE[code])
        fractures = int(rng.integers(1, MOST_FRACTURES + 1))
        phantom = draw_phantom(seed, findings=findings, fractures=fractures, count=SLICES_DRAWN)
        targets = slice_targets(phantom)
        weights = 0.5 + 2.0 * targets.slices.sum(1).numpy()
        weights[0] *= 0.5  # the base and the vertex show least
        weights[-1] *= 0.3
        chosen = rng.choice(len(weights), SLICES_KEPT, replace=False, p=weights / weights.sum())
        images.append(pixel_values(phantom.hounsfield[chosen]))
        parts.append(targets.chosen(chosen))
    return torch.cat(images), SliceTargets(
        torch.cat([part.slices for part in parts]),
        torch.cat([part.patches for part in parts]),
        torch.cat([part.shift_cm for part in parts]),
    )
