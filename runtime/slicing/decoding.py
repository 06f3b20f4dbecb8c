"""Slices of one series decoded file by file, several compressed files at a time."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.files.discovery import FileKind, UnreadableFileError, sniff
from edge_medgemma.runtime.slicing.files.limits import MAX_BYTES_AT_ONCE
from edge_medgemma.runtime.slicing.nifti import decode_nifti
from edge_medgemma.runtime.slicing.pixels.codec_pool import CodecPool
from edge_medgemma.runtime.slicing.pixels.pixel_data import DecodedSlices, decode_native
from edge_medgemma.runtime.slicing.volume import Problem, Series

OnProgress = Callable[[int, int], None]
"""Called with (done, total)."""

Outcome = DecodedSlices | UnreadableFileError
"""Slices as they are stored, or why there are none."""


@dataclass(frozen=True, slots=True)
class TurnedSlices:
    """Slices the standard way up."""

    slots: list[int]
    """Place of each among the slices asked for."""
    values: NDArray[np.float32]
    """[N, rows, columns], in the units of `Volume.array`."""
    problems: tuple[Problem, ...]
    """What the values show that the header does not say."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Slices of one file that are decoded together."""

    path: Path
    frames: list[int]
    slots: list[int]
    """Place of each among the slices asked for."""


def decode_by_file(
    series: Series,
    indices: NDArray[np.int64],
    failures: dict[int, str],
    on_progress: OnProgress | None,
    pool: CodecPool | None = None,
) -> Iterator[TurnedSlices]:
    """Yield slices of `indices` the standard way up, in whatever order they get ready.

    Slots that cannot be decoded go into `failures` with the reason. `pool` is one that the caller
    keeps for further calls; by default one is made for this call.
    """
    done = 0
    portions = _portions(series, indices)
    with contextlib.nullcontext(pool) if pool else CodecPool(len(portions)) as codecs:
        for portion, outcome in _outcomes(series, portions, codecs):
            done += len(portion.slots)
            if on_progress is not None:
                on_progress(done, len(indices))
            if isinstance(outcome, UnreadableFileError):
                failures.update(dict.fromkeys(portion.slots, str(outcome)))
                continue
            turn = series.turns[indices[portion.slots[0]] if len(series.turns) > 1 else 0]
            values = fitted(turn.apply(outcome.values), series)
            if values is None:
                failures.update(dict.fromkeys(portion.slots, "changed since it was listed"))
            else:
                yield TurnedSlices(portion.slots, values, outcome.problems)


def fitted(values: NDArray[np.float32], series: Series) -> NDArray[np.float32] | None:
    """Slices [N, rows, columns] in the shape of the series; None where they are of another.

    Radiographs of one study may differ in size: smaller ones are put in the middle of black.
    """
    missing = series.shape[1] - values.shape[1], series.shape[2] - values.shape[2]
    if missing == (0, 0):
        return values
    if not series.views or min(missing) < 0:
        return None
    (top, left) = missing[0] // 2, missing[1] // 2
    margins = ((0, 0), (top, missing[0] - top), (left, missing[1] - left))
    return np.pad(values, margins)


def _outcomes(
    series: Series, portions: list[Portion], pool: CodecPool
) -> Iterator[tuple[Portion, Outcome]]:
    """Few compressed portions wait at a time, so that memory stays bounded."""
    running: dict[Future[DecodedSlices], Portion] = {}
    for portion in portions:
        outcome = _try(lambda portion=portion: _decode_here(portion, series))  # type: ignore[misc]
        if outcome is not None:
            yield portion, outcome
            continue
        running[pool.submit(portion.path, portion.frames, series.modality)] = portion
        if len(running) > 2 * pool.size:
            yield from _finished(running)
    while running:
        yield from _finished(running)


def _finished(
    running: dict[Future[DecodedSlices], Portion],
) -> Iterator[tuple[Portion, Outcome]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        outcome = _try(future.result)
        assert outcome is not None
        yield running.pop(future), outcome


def _try(decode: Callable[[], DecodedSlices | None]) -> Outcome | None:
    try:
        return decode()
    except UnreadableFileError as error:
        return error


def _portions(series: Series, indices: NDArray[np.int64]) -> list[Portion]:
    by_path: dict[Path, list[int]] = defaultdict(list)
    for slot, index in enumerate(indices):
        by_path[series.sources[index].path].append(slot)
    at_once = max(1, MAX_BYTES_AT_ONCE // (4 * series.shape[1] * series.shape[2]))
    parts = [
        (path, slots[start : start + at_once])
        for path, slots in by_path.items()
        for start in range(0, len(slots), at_once)
    ]
    return [
        Portion(path, [series.sources[indices[slot]].frame for slot in slots], slots)
        for path, slots in parts
    ]


def _decode_here(portion: Portion, series: Series) -> DecodedSlices | None:
    """Slices that no codec is needed for; None if one is."""
    if sniff(portion.path) is FileKind.NIFTI:
        return DecodedSlices(decode_nifti(portion.path, portion.frames))
    return decode_native(portion.path, portion.frames, series.modality)
