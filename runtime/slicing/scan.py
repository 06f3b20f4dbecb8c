"""Entry point of the package: what a scan holds, and the slices of one of its series."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.decoding import OnProgress, decode_by_file
from edge_medgemma.runtime.slicing.dicom.headers import SliceHeader, read_slice_headers
from edge_medgemma.runtime.slicing.files.archives import unpack
from edge_medgemma.runtime.slicing.files.budget import UnpackBudget
from edge_medgemma.runtime.slicing.files.discovery import (
    Entry,
    FileKind,
    UnreadableFileError,
    sniff,
)
from edge_medgemma.runtime.slicing.files.limits import MAX_FILES, MAX_VOLUME_BYTES
from edge_medgemma.runtime.slicing.files.unpack_folder import sweep_abandoned
from edge_medgemma.runtime.slicing.files.walk import walk_files
from edge_medgemma.runtime.slicing.grouping import group_slices
from edge_medgemma.runtime.slicing.hounsfield import hounsfield_problems
from edge_medgemma.runtime.slicing.nifti import read_nifti_series
from edge_medgemma.runtime.slicing.series import describe_stack
from edge_medgemma.runtime.slicing.values import ValueStatistics
from edge_medgemma.runtime.slicing.volume import (
    Modality,
    Problem,
    ScanListing,
    Series,
    SkippedFile,
    Volume,
)


def find_series(
    scan: Path,
    on_progress: OnProgress | None = None,
    modality: Modality | None = None,
    most_files: int | None = None,
) -> ScanListing:
    """Every series in a folder (or one file), from headers alone, and every file skipped.

    Names, extensions and order of files do not matter. Archives are unpacked into a folder that
    goes when the process ends. `on_progress` counts files. `modality` is that of
    NIfTI files, which do not tell it. `most_files` is for whole datasets, which hold more than
    MAX_FILES; each takes about 4 kB of memory while headers are read.

    Raises:
        ScanError: the path is missing, the folder is empty or too full, or nothing is readable.
    """
    sweep_abandoned()
    limit = MAX_FILES if most_files is None else most_files
    entries = _list_entries(scan, limit)
    budget = UnpackBudget(limit - len(entries))
    headers: list[SliceHeader] = []
    series: list[Series] = []
    skipped: list[SkippedFile] = []
    for done, entry in enumerate(entries, start=1):
        try:
            kind = _kind(entry)
            if kind is FileKind.DICOM:
                headers.extend(read_slice_headers(entry.path))
            elif kind is FileKind.NIFTI:
                series.append(_new_nifti(entry.path, series, modality))
            else:
                entries.extend(unpack(entry.path, kind, entry.shown, budget))
        except UnreadableFileError as error:
            skipped.append(SkippedFile(_printable(entry.shown), str(error)))
        if on_progress is not None:
            on_progress(done, len(entries))
    names = {entry.path: entry.shown for entry in entries}
    stacks, dropped = group_slices(headers)
    series.extend(describe_stack(stack) for stack in stacks)
    skipped.extend(_dropped_files(dropped, names))
    if not series:
        raise ScanError(_nothing_readable(scan, skipped))
    series.sort(key=lambda one: (one.study_uid, one.series_uid))
    return ScanListing(tuple(series), tuple(sorted(skipped, key=lambda file: file.path)))


def read_volume(
    series: Series,
    slice_indices: Sequence[int] | NDArray[np.int64] | None = None,
    on_progress: OnProgress | None = None,
) -> Volume:
    """Decode some slices of a series (None: all), ascending. `on_progress` counts slices.

    Of an MR every slice is decoded, one part at a time, for the range of all values: the display of
    an MR runs from the lowest to the highest value of the volume. Slices that cannot be decoded are
    left out with the problem `undecodable_slices`.

    Raises:
        ScanError: an index outside the series, too many slices to hold, or none can be decoded.
    """
    indices = _checked_indices(series, slice_indices)
    is_mr = series.modality is Modality.MR
    decoded = np.arange(series.shape[0]) if is_mr else indices
    slot_of = {int(index): slot for slot, index in enumerate(indices)}
    array = np.empty((len(indices), *series.shape[1:]), dtype=np.float32)
    failures: dict[int, str] = {}
    values = ValueStatistics(series.modality)
    for part in decode_by_file(series, decoded, failures, on_progress):
        values.add(part.values, part.problems)
        for place, one in zip(part.slots, part.values, strict=True):
            if (slot := slot_of.get(int(decoded[place]))) is not None:
                array[slot] = one
    lost = {int(decoded[place]): reason for place, reason in failures.items()}
    kept = np.array([slot for index, slot in slot_of.items() if index not in lost], dtype=np.int64)
    if not len(kept):
        reason = _most_frequent(lost.values())
        raise ScanError(f"no slice of the series can be decoded: {reason}; export it once more")
    array = array[kept] if len(kept) < len(indices) else array
    problems = _decoding_problems(series, values, failures)
    return Volume(series, indices[kept], array, problems, values.range if is_mr else None)


def measure_range(
    series: Series, on_progress: OnProgress | None = None
) -> tuple[tuple[float, float] | None, tuple[Problem, ...]]:
    """Lowest and highest value of all slices, a part in memory at a time, and all problems.

    Values are those of `read_volume`: padding of a CT counts as air. None if none can be decoded.
    """
    failures: dict[int, str] = {}
    values = ValueStatistics(series.modality)
    every = np.arange(series.shape[0])
    for part in decode_by_file(series, every, failures, on_progress):
        values.add(part.values, part.problems)
    return values.range, _decoding_problems(series, values, failures)


def _list_entries(scan: Path, most_files: int) -> list[Entry]:
    if not os.path.exists(scan):  # unlike that of Path, it raises nothing
        raise ScanError(
            f"'{scan}' does not exist or cannot be opened; expected a folder of DICOM files or a NIfTI file"
        )
    entries = []
    for entry in walk_files(scan):
        entries.append(entry)
        if len(entries) > most_files:
            raise ScanError(
                f"'{scan}' holds more than {most_files} files; choose one study's folder"
            )
    if not entries:
        raise ScanError(f"'{scan}' is empty; expected a folder of DICOM files or a NIfTI file")
    return entries


def _new_nifti(path: Path, known: list[Series], modality: Modality | None) -> Series:
    one = read_nifti_series(path, modality)
    if any(one.series_uid == other.series_uid for other in known):
        raise UnreadableFileError("duplicate: the same content as another file")
    return one


def _kind(entry: Entry) -> FileKind:
    if entry.reason is not None:
        raise UnreadableFileError(entry.reason)
    kind = sniff(entry.path)
    if entry.is_unpacked and kind in (FileKind.ZIP, FileKind.TAR):
        raise UnreadableFileError("archive in an archive; unpack it first")
    return kind


def _dropped_files(
    dropped: list[tuple[SliceHeader, str]], names: dict[Path, str]
) -> list[SkippedFile]:
    """One line per file: a multi-frame object may have many frames left out for one reason."""
    reasons = {(header.source.path, reason) for header, reason in dropped}
    return [SkippedFile(_printable(names[path]), reason) for path, reason in reasons]


def _printable(name: str) -> str:
    """A name may hold terminal escapes or bytes that are no text."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name
    )


def _nothing_readable(scan: Path, skipped: list[SkippedFile]) -> str:
    reason = _most_frequent(file.reason for file in skipped) if skipped else "they hold no image"
    return (
        f"no CT, MR or X-ray image in '{scan}': files skipped: {len(skipped)}, most often because: "
        f"{reason}; give the folder that holds the DICOM or NIfTI images"
    )


def _most_frequent(reasons: Iterable[str]) -> str:
    return Counter(reasons).most_common(1)[0][0]


def _checked_indices(
    series: Series, slice_indices: Sequence[int] | NDArray[np.int64] | None
) -> NDArray[np.int64]:
    count, rows, columns = series.shape
    chosen = np.arange(count) if slice_indices is None else np.unique(np.asarray(slice_indices))
    indices = chosen.astype(np.int64)
    if not len(indices) or indices[0] < 0 or indices[-1] >= count:
        raise ScanError(f"slices must be given within 0 to {count - 1}, the slices of the series")
    size = 4 * len(indices) * rows * columns
    if size > MAX_VOLUME_BYTES:
        raise ScanError(
            f"{len(indices)} slices of {rows} × {columns} need {size / 1e9:.1f} GB, more than "
            f"{MAX_VOLUME_BYTES / 1e9:.1f} GB; choose fewer slices"
        )
    return indices


def _decoding_problems(
    series: Series, values: ValueStatistics, failures: dict[int, str]
) -> tuple[Problem, ...]:
    """The problems of the series and those its pixels show."""
    problems = list(series.problems)
    if failures:
        reason = _most_frequent(failures.values())
        detail = f"{len(failures)} slices left out, most often because: {reason}"
        problems.append(Problem("undecodable_slices", detail))
    problems += values.problems
    is_flagged = any(problem.name == "not_hounsfield" for problem in problems)
    if series.modality is Modality.CT and not is_flagged:
        problems += hounsfield_problems(values.counts)
    return tuple(dict.fromkeys(problems))
