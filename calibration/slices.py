"""The slices that calibration looks at: every kind of scan and every part of it, sampled by a seed."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.scanners import scanner_of
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.sampling import MAX_SLICES, sample_slices
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Series, SliceStack
from edge_medgemma.runtime.slicing.windows import render_stack

POSITION_BANDS = ("first third", "middle third", "last third")

FLAT_DEVIATION = 2.0
"""A slice whose grey values deviate less than this (of 255) shows air or nothing."""

HELD_OUT_SHARE = 0.25
"""Share of the sampled slices, rounded up, that calibration never sees: they measure the loss."""


@dataclass(frozen=True, slots=True)
class CalibrationSlice:
    """One slice as the model sees it."""

    pixels: NDArray[np.uint8]
    """[rows, columns, 3]"""
    series: int
    """Number of its series among those read"""
    modality: Modality
    body_part: BodyPart
    preset: str
    band: str
    """Third of the stack it lies in"""

    @property
    def stratum(self) -> tuple[str, str, str]:
        """Slices are sampled evenly over these."""
        return self.modality, f"{self.preset} {self.body_part}", self.band


@dataclass(frozen=True, slots=True)
class SliceSet:
    """The sampled slices and where they came from."""

    slices: tuple[CalibrationSlice, ...]
    held_out: tuple[CalibrationSlice, ...]
    scans: int
    series: int
    seed: int
    warnings: tuple[str, ...]
    study_of_series: tuple[int, ...] = ()
    """Number of the study that each series belongs to; empty where each is its own."""
    scanners: tuple[str, ...] = ()
    """Scanner of each series, see `scanners.py`; empty where none is known."""

    @property
    def sha256(self) -> str:
        """Hash of every pixel, in order: the identity of the set, which says nothing of a patient."""
        digest = hashlib.sha256()
        for one in (*self.slices, *self.held_out):
            digest.update(repr((one.pixels.shape, one.stratum)).encode())
            digest.update(one.pixels.tobytes())
        return digest.hexdigest()


def sample_calibration_slices(
    scans: Sequence[Path],
    count: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> SliceSet:
    """Sample `count` slices and a quarter more to hold out, evenly over modality, window and position.

    Whole series are held out where a window has several, so that no neighbour of a calibration
    slice measures the loss.

    Raises:
        ScanError: nothing readable, or no slice that shows anything.
    """
    found: list[Series] = []
    for scan in scans:
        found += find_series(scan).series
    generator = np.random.default_rng(seed)
    wanted_held_out = max(1, round(count * HELD_OUT_SHARE))
    candidates: list[CalibrationSlice] = []
    seen = 0
    refused = ""
    quota = _slices_per_series(count + wanted_held_out, len(found))
    for number, series in enumerate(found):
        try:
            slices = list(_informative(_rendered(series), number))
        except ScanError as error:
            refused = str(error)
            slices = []
        seen += len(slices)
        candidates += _evenly(slices, quota, generator)
        if on_progress is not None:
            on_progress(number + 1, len(found))
    if not candidates:
        reason = refused or "every slice is air or of one grey value"
        raise ScanError(
            f"no slice to calibrate on in {len(scans)} scans of {len(found)} series: {reason}; "
            "give scans that show anatomy"
        )
    held_out_places = _held_out_places(candidates, generator)
    held_out = [one for i, one in enumerate(candidates) if i in held_out_places]
    rest = [one for i, one in enumerate(candidates) if i not in held_out_places]
    chosen = _evenly(rest, count, generator)
    return SliceSet(
        slices=tuple(chosen),
        held_out=tuple(_evenly(held_out or rest, wanted_held_out, generator)),
        scans=len(scans),
        series=len(found),
        seed=seed,
        warnings=_warnings(chosen, count),
        study_of_series=_study_numbers(found),
        scanners=tuple(map(scanner_of, found)),
    )


def _study_numbers(found: Sequence[Series]) -> tuple[int, ...]:
    """Number of the study of each series; a series that names none is a study of its own."""
    keys = [one.study_uid or one.series_uid for one in found]
    return tuple(keys.index(key) for key in keys)


def _slices_per_series(wanted: int, series: int) -> int:
    """Slices enough for the sample even if half of the series show nothing."""
    return max(len(POSITION_BANDS), -(-2 * wanted // max(series, 1)))


def _rendered(series: Series) -> SliceStack:
    """The slices that a triage of this series would show the model."""
    return render_stack(read_volume(series, sample_slices(series.shape[0], MAX_SLICES)))


def _informative(stack: SliceStack, number: int) -> Iterator[CalibrationSlice]:
    total = stack.series.shape[0]
    for pixels, index in zip(stack.pixels, stack.slice_indices, strict=True):
        if pixels.std() < FLAT_DEVIATION:
            continue
        band = POSITION_BANDS[min(int(index) * len(POSITION_BANDS) // total, 2)]
        yield CalibrationSlice(
            pixels, number, stack.series.modality, stack.series.body_part, stack.preset, band
        )


def _held_out_places(
    candidates: Sequence[CalibrationSlice], generator: np.random.Generator
) -> set[int]:
    """Places of a quarter of the series of each window, or of the slices of a lone series."""
    by_window: dict[tuple[str, str], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, one in enumerate(candidates):
        by_window[one.stratum[:2]][one.series].append(place)
    held_out: set[int] = set()
    for series in by_window.values():
        if len(series) > 1:
            count = max(1, round(len(series) * HELD_OUT_SHARE))
            for number in generator.permutation(list(series))[:count].tolist():
                held_out.update(series[number])
        else:
            (places,) = series.values()
            held_out.update(places[1::4])
    return held_out


def _evenly(
    slices: Sequence[CalibrationSlice], count: int, generator: np.random.Generator
) -> list[CalibrationSlice]:
    """`count` slices at most, one stratum after the other, each in random order; the scan's order kept."""
    strata: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for i in generator.permutation(len(slices)).tolist():
        strata[slices[i].stratum].append(i)
    queues = [strata[key] for key in sorted(strata)]
    chosen: list[int] = []
    while len(chosen) < min(count, len(slices)):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
    return [slices[i] for i in sorted(chosen)]


def _warnings(slices: Sequence[CalibrationSlice], wanted: int) -> tuple[str, ...]:
    warnings = []
    modalities = sorted({str(one.modality) for one in slices})
    if len(modalities) == 1:
        warnings.append(
            f"single_modality: only {modalities[0]} was seen; other modalities may clip"
        )
    if len(slices) < wanted:
        warnings.append(f"few_slices: {len(slices)} slices of the {wanted} asked for")
    return tuple(warnings)
