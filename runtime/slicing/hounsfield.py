"""Whether the values of a CT can be Hounsfield units: air, soft tissue, and where its peaks lie."""

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.values import LOWEST_HU, ValueStatistics
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Problem

AIR_BELOW_HU = -500
"""A CT without any voxel below this shows no air at all."""

BODY_ABOVE_HU = -300
"""Voxels above are body, or the table; lung and air lie below."""

MIN_EDGE_FRACTION = 0.001
"""Share of all voxels between padding and body: air with its noise and the skin's edge. The padding
alone says nothing, as it is set to air whatever the units are."""

MIN_BODY_FRACTION = 0.005
"""Less of all voxels, and hardly anything but air is in the picture."""

SOFT_TISSUE_HU = (-150, 150)
"""From fat to enhanced organs."""

MIN_SOFT_TISSUE = 0.3
"""Share of the body's voxels. Heads and trunks of nine scanners have 0.70 to 1.0; with the intercept
applied twice it is 0.36 of what noise leaves, or less, and 0.05 of all voxels."""

MIN_SOFT_TISSUE_OF_ALL = 0.025
"""Share of all voxels; the heads and trunks have 0.19 to 0.6, a plastic head in a wide picture 0.04."""

BRAIN_PEAK_HU = (10.0, 53.0)
"""Most frequent value of the soft tissue of a head: white and grey matter lie at 25 to 40, oedema and
infants below, contrast agents add some units."""

AIR_PEAK_HU = -930
MIN_AIR_FRACTION = 0.02
"""Most frequent value of the air in and around a head, where that is so much of all voxels: -1000, or
less where a scanner cuts it off."""

SAME_TISSUE_HU = 5
MAX_SAME_TISSUE = 0.95
MIN_HIGHEST_HU = 20
"""Where so much of the soft tissue lies within `SAME_TISSUE_HU` of each other and nothing is above
`MIN_HIGHEST_HU`, the slope has made nothing of everything."""

TRUNK_TISSUES_HU = ((-135, -60), (5, 95))
"""Fat; muscle and organs, enhanced or not."""

MIN_TRUNK_TISSUES = 0.5
"""Share of a trunk's soft tissue within `TRUNK_TISSUES_HU`."""

MUSCLE_HU, NEAR_SOFT_TISSUE_HU = (10, 130), (-250, 250)
MIN_MUSCLE = 0.21
"""Share of muscle and organs in what may be soft tissue; 17 trunks have 0.27 to 0.5, and 0.02 to 0.2
once their values are a tenth or 100 HU too low."""

PEAK_SMOOTHING_HU = 17
"""Width of the moving average ahead of the search for a peak."""


def hounsfield_problems(counts: NDArray[np.int64]) -> list[Problem]:
    """Problems of a histogram [4096] of all voxels, from `LOWEST_HU` on."""
    total = int(counts.sum())
    if not total:
        return []
    if not counts[: AIR_BELOW_HU - LOWEST_HU].any():
        detail = f"no voxel is below {AIR_BELOW_HU}, so nothing is air: not Hounsfield units"
        return [Problem("not_hounsfield", detail)]
    if counts[1 : BODY_ABOVE_HU - LOWEST_HU].sum() < MIN_EDGE_FRACTION * total:
        detail = (
            "only padding has values of air, and no edge of the body shows: not Hounsfield units"
        )
        return [Problem("not_hounsfield", detail)]
    body = int(counts[BODY_ABOVE_HU - LOWEST_HU :].sum())
    if body < MIN_BODY_FRACTION * total:
        return [Problem("almost_only_air", f"{body / total:.1%} of the voxels are not air")]
    soft = _share(counts, SOFT_TISSUE_HU)
    if soft < MIN_SOFT_TISSUE * body or soft < MIN_SOFT_TISSUE_OF_ALL * total:
        low, high = SOFT_TISSUE_HU
        detail = (
            f"only {soft / body:.0%} of what is not air has values of soft tissue ({low} to {high}): "
            "not Hounsfield units"
        )
        return [Problem("not_hounsfield", detail)]
    low, high = (bound - LOWEST_HU for bound in SOFT_TISSUE_HU)
    densest = int(np.convolve(counts[low : high + 1], np.ones(SAME_TISSUE_HU, np.int64)).max())
    has_bright = counts[MIN_HIGHEST_HU - LOWEST_HU :].any()
    if densest > MAX_SAME_TISSUE * soft and not has_bright:
        detail = f"all soft tissue lies within {SAME_TISSUE_HU} units: not Hounsfield units"
        return [Problem("not_hounsfield", detail)]
    return []


def tissue_problems(slices: NDArray[np.float32], body_part: BodyPart) -> list[Problem]:
    """Whether the soft tissue of a body part has its values, in slices [N, rows, columns] in HU."""
    statistics = ValueStatistics(Modality.CT)
    statistics.add(slices)
    counts = statistics.counts
    soft = _share(counts, SOFT_TISSUE_HU)
    if not soft:
        return []
    if body_part is BodyPart.HEAD:
        air = counts[1 : AIR_BELOW_HU - LOWEST_HU]
        air_peak = (
            int(np.argmax(np.convolve(air, np.ones(PEAK_SMOOTHING_HU), "same"))) + 1 + LOWEST_HU
        )
        if air.sum() > MIN_AIR_FRACTION * counts.sum() and air_peak > AIR_PEAK_HU:
            return [
                Problem("implausible_hounsfield", f"most air has {air_peak} HU instead of -1000")
            ]
        peak = _peak_hu(counts)
        if not BRAIN_PEAK_HU[0] <= peak <= BRAIN_PEAK_HU[1]:
            detail = f"most soft tissue has {peak:.0f} HU; brain has {BRAIN_PEAK_HU[0]:.0f} to "
            return [Problem("implausible_hounsfield", detail + f"{BRAIN_PEAK_HU[1]:.0f}")]
    elif body_part in (BodyPart.CHEST, BodyPart.ABDOMEN):
        share = sum(_share(counts, tissue) for tissue in TRUNK_TISSUES_HU) / soft
        muscle = _share(counts, MUSCLE_HU) / _share(counts, NEAR_SOFT_TISSUE_HU)
        if share < MIN_TRUNK_TISSUES or muscle < MIN_MUSCLE:
            share = min(share, muscle)
            detail = f"only {share:.0%} of the soft tissue has the values of fat, muscle or organs"
            return [Problem("implausible_hounsfield", detail)]
    return []


def inconsistent_slices(slices: NDArray[np.float32]) -> int:
    """Number of slices [N, rows, columns] in HU that, by themselves, are not in Hounsfield units."""
    count = 0
    for one in slices:
        statistics = ValueStatistics(Modality.CT)
        statistics.add(one)
        count += bool(hounsfield_problems(statistics.counts))
    return count


def looks_like_hounsfield(counts: NDArray[np.int64]) -> bool:
    """Whether a histogram is one of a CT: air, and soft tissue as it has."""
    return not hounsfield_problems(counts)


def _share(counts: NDArray[np.int64], bounds_hu: tuple[int, int]) -> int:
    low, high = bounds_hu
    return int(counts[low - LOWEST_HU : high - LOWEST_HU + 1].sum())


def _peak_hu(counts: NDArray[np.int64]) -> float:
    """Most frequent value of soft tissue without fat, in HU."""
    low, high = -50 - LOWEST_HU, SOFT_TISSUE_HU[1] - LOWEST_HU
    smooth = np.convolve(counts, np.ones(PEAK_SMOOTHING_HU), "same")
    return float(np.argmax(smooth[low : high + 1]) + low + LOWEST_HU)
