"""Slices of one kind told apart where one series holds several stacks, and held together where it
does not: values that differ by noise, or from slice to slice, tear no stack apart."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.dicom.headers import REPEAT_NAMES, SliceHeader
from edge_medgemma.runtime.slicing.geometry import (
    MISSING_SLICE_RATIO,
    SAME_POSITION_MM,
    is_uniform,
    stack_normal,
)
from edge_medgemma.runtime.slicing.volume import Modality

SAME_SPACING_RATIO = 1e-3
"""Pixel spacings no further apart are one: half a pixel over a matrix of 512. Rounded tags differ by
1e-4 at most (0.3905 and 0.39049999 in one series, dcm2niix issue 1019)."""

SAME_ECHO_TIME_MS = 0.1
"""Echo times no further apart are one: GE writes them with jitter of some microseconds, while the
echoes of one sequence are 0.7 ms or more apart (fat and water in and out of phase at 3 T: 1.1)."""

SAME_THICKNESS_MM = 0.05
"""Slice thicknesses no further apart are one; scanners offer steps of 0.1 mm and more."""

MIN_PART_SLICES = 2
"""A value that most parts have on a single slice counts slices; it does not tell stacks apart."""

MAX_CONTINUATION_STEPS = 3.0
"""A part that begins no more than so many steps behind the end of another continues it."""

MAX_OVERLAP_STEPS = 2.0
"""Blocks of one scan, such as neck and head, are planned to overlap by one or two slices."""

TIME_NAMES = ("time points", "acquisitions", "phases")
"""Those of `REPEAT_NAMES` that in MR are one volume at several times, not several volumes."""

SEPARATING_NAMES = ("image types", "kernels", *TIME_NAMES)
"""Those of `REPEAT_NAMES` that separate stacks also where no two slices share a position."""

Slices = list[SliceHeader]


@dataclass(frozen=True, slots=True)
class Attribute:
    """A property by which slices of one series may belong to different stacks."""

    name: str
    """Plural, for the report."""
    split: Callable[[Slices], list[Slices]]
    """The parts that it makes of parallel slices."""


def clusters(values: Sequence[float], tolerance: Callable[[float], float]) -> list[int]:
    """Number of the cluster of each value: neighbours within the tolerance are in one.

    Args:
        values: any order.
        tolerance: largest difference from a value to the next larger one.
    """
    order = np.argsort(values, kind="stable")
    numbers = [0] * len(values)
    number = 0
    for before, index in pairwise(order):
        number += values[index] - values[before] > tolerance(values[before])
        numbers[index] = number
    return numbers


def split_by_value(headers: Slices, key: Callable[[SliceHeader], Hashable]) -> list[Slices]:
    """Partition by `key`, parts in the order of their first member."""
    parts: dict[Hashable, Slices] = defaultdict(list)
    for header in headers:
        parts[key(header)].append(header)
    return list(parts.values())


def split_by_number(
    headers: Slices,
    number: Callable[[SliceHeader], float | None],
    tolerance: Callable[[float], float],
) -> list[Slices]:
    """Parts whose numbers are clusters; those without a number are a part of their own."""
    given = [header for header in headers if number(header) is not None]
    parts: dict[int, Slices] = {}
    values = [float(number(header) or 0.0) for header in given]
    for header, cluster in zip(given, clusters(values, tolerance), strict=True):
        parts.setdefault(cluster, []).append(header)
    missing = [header for header in headers if number(header) is None]
    return [*parts.values(), *([missing] if missing else [])]


def separate(plane: Slices) -> tuple[list[Slices], str]:
    """The stacks among parallel slices with positions, and what told them apart (empty: nothing).

    Parts that lie behind each other are one stack (a head scanned thin below and thick above);
    parts that overlap, or lie far from each other, are several.
    """
    for attribute in _attributes(plane[0].modality):
        chains = _chains(plane, attribute)
        if len(chains) > 1:
            parts = [part for chain in chains for part in separate(chain)[0]]
            return parts, attribute.name
    return [plane], ""


def projected_mm(slices: Slices) -> NDArray[np.float64]:
    """Position [N] of each along the normal of the first."""
    normal = stack_normal(np.array(slices[0].orientation))
    positions: NDArray[np.float64] = np.array([header.position_mm for header in slices]) @ normal
    return positions


def _attributes(modality: Modality) -> list[Attribute]:
    named = [
        Attribute(name, partial(_by_repeat, index=index))
        for index, name in enumerate(REPEAT_NAMES)
        if name in SEPARATING_NAMES
    ]
    agent = partial(split_by_value, key=lambda header: header.has_contrast_agent)
    others = [Attribute("thicknesses", _by_thickness), Attribute("contrast agents", agent)]
    runs = [Attribute("runs of instance numbers", _runs)] if modality is Modality.CT else []
    return [*named, *others, *runs]


def _by_repeat(plane: Slices, index: int) -> list[Slices]:
    return split_by_value(plane, lambda header: header.repeats[index])


def _by_thickness(plane: Slices) -> list[Slices]:
    return split_by_number(plane, lambda header: header.thickness_mm, lambda _: SAME_THICKNESS_MM)


def _chains(plane: Slices, attribute: Attribute) -> list[Slices]:
    """Parts by the value of an attribute, those that continue each other joined."""
    parts = attribute.split(plane)
    if len(parts) == 1 or counts_slices(parts) or _is_evenly_shared(plane, parts, attribute):
        return [plane]
    if plane[0].modality is Modality.MR and attribute.name in TIME_NAMES:
        positions = np.sort(projected_mm(plane))
        steps = np.diff(positions)
        if steps.min() < SAME_POSITION_MM or is_uniform(positions):
            return [plane]  # several times, or slices of one stack acquired in turns
    chains: list[Slices] = []
    for part in sorted(parts, key=lambda part: (projected_mm(part).min(), len(part))):
        fitting = [chain for chain in chains if _continues(part, chain)]
        if fitting:
            fitting[0].extend(part)
        else:
            chains.append(list(part))
    return chains


def counts_slices(parts: Sequence[Slices]) -> bool:
    """Whether most parts are single slices: what splits them says nothing about stacks."""
    return sum(len(part) < MIN_PART_SLICES for part in parts) * 2 > len(parts)


def _is_evenly_shared(plane: Slices, parts: Sequence[Slices], attribute: Attribute) -> bool:
    """Whether slices that lie side by side without a gap take turns in a value.

    Each part alone would leave as much unseen as it shows; two stacks would overlap.
    """
    thicknesses = [header.thickness_mm for header in plane if header.thickness_mm is not None]
    positions = np.sort(projected_mm(plane))
    if not thicknesses or attribute.name == "kernels" or len(positions) < 3:
        return False
    if np.diff(positions).min() < SAME_POSITION_MM or not is_uniform(positions):
        return False
    limit_mm = MISSING_SLICE_RATIO * max(thicknesses)
    return _usual_step_mm(positions) * MISSING_SLICE_RATIO > max(thicknesses) and all(
        _usual_step_mm(projected_mm(part)) > limit_mm for part in parts
    )


def _usual_step_mm(positions_mm: NDArray[np.float64]) -> float:
    """Median step between different positions; 0 where there is one alone."""
    steps = np.diff(np.sort(positions_mm))
    steps = steps[steps >= SAME_POSITION_MM]
    return float(np.median(steps)) if len(steps) else 0.0


def _runs(plane: Slices) -> list[Slices]:
    """Slices in order of instance number, cut where the positions turn back by more than a step."""
    if len({header.instance_number for header in plane}) < len(plane):
        return [plane]
    ordered = sorted(plane, key=lambda header: header.instance_number)
    steps = np.diff(projected_mm(ordered))
    extent_mm = float(np.ptp(projected_mm(plane)))
    for cuts in (_cuts_back(steps), _cuts_at_turns(steps)):
        runs = [ordered[begin:end] for begin, end in pairwise([0, *cuts, len(ordered)])]
        if len(runs) > 1 and all(float(np.ptp(projected_mm(run))) >= extent_mm / 2 for run in runs):
            return runs
    return [plane]


def _cuts_back(steps: NDArray[np.float64]) -> list[int]:
    """Where slices that mostly follow each other in one direction start anew."""
    direction = np.sign(np.median(steps)) if len(steps) else 0
    usual = float(np.median(np.abs(steps))) if len(steps) else 0.0
    return (np.flatnonzero(steps * direction < -MISSING_SLICE_RATIO * usual) + 1).tolist()


def _cuts_at_turns(steps: NDArray[np.float64]) -> list[int]:
    """Where slices turn round: one stack upwards, the next downwards."""
    usual = float(np.median(np.abs(steps))) if len(steps) else 0.0
    turns = np.flatnonzero(steps[:-1] * steps[1:] < 0) + 1
    # the slice at the turn belongs where its step is more like all others
    return [int(t + (abs(abs(steps[t - 1]) - usual) <= abs(abs(steps[t]) - usual))) for t in turns]


def _continues(part: Slices, chain: Slices) -> bool:
    """Whether `part` goes on where `chain` ends: from two steps inside or a few behind."""
    own, known = np.sort(projected_mm([chain[0], *part])[1:]), np.sort(projected_mm(chain))
    gap = float(own[0] - known[-1])
    steps = [step for step in (_usual_step_mm(own), _usual_step_mm(known)) if step]
    widest = max([*steps, SAME_POSITION_MM])
    inside_mm = max([widest, MAX_OVERLAP_STEPS * min([widest, *steps])]) + SAME_POSITION_MM
    goes_on = float(own[-1]) > float(known[-1]) + SAME_POSITION_MM
    return goes_on and -inside_mm <= gap <= MAX_CONTINUATION_STEPS * widest
