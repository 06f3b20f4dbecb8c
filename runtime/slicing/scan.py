"""The door of this room: what a scan holds, and the slices of one of its series."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.codec_process import CodecProcess
from edge_medgemma.runtime.slicing.dicom_file import is_compressed, parse_guarded
from edge_medgemma.runtime.slicing.dicom_headers import SliceHeader, read_slice_headers
from edge_medgemma.runtime.slicing.discovery import (
    FileKind,
    UnreadableFileError,
    sniff,
    walk_files,
)
from edge_medgemma.runtime.slicing.grouping import group_slices
from edge_medgemma.runtime.slicing.limits import MAX_BYTES_AT_ONCE, MAX_FILES, MAX_VOLUME_BYTES
from edge_medgemma.runtime.slicing.nifti import decode_nifti, read_nifti_series
from edge_medgemma.runtime.slicing.pixels import decode_slices
from edge_medgemma.runtime.slicing.series import describe_stack
from edge_medgemma.runtime.slicing.volume import (
    Modality,
    Problem,
    ScanListing,
    Series,
    SkippedFile,
    Volume,
)

OnProgress = Callable[[int, int], None]
"""Called with (done, total)."""

PLAUSIBLE_AIR_HU = -500.0
"""A CT without any voxel below this shows no air at all: its values are not Hounsfield units."""


def find_series(scan: Path, on_progress: OnProgress | None = None) -> ScanListing:
    """Every series in a folder (or one file), from headers alone, and every file skipped.

    Names, extensions and order of files do not matter. `on_progress` counts files.

    Raises:
        ScanError: the path is missing, the folder is empty or too full, or nothing is readable.
    """
    entries = _list_entries(scan)
    root = scan.resolve() if scan.is_dir() else scan.resolve().parent
    headers: list[SliceHeader] = []
    series: list[Series] = []
    skipped: list[SkippedFile] = []
    for done, (path, reason) in enumerate(entries, start=1):
        try:
            if reason is not None:
                raise UnreadableFileError(reason)
            if sniff(path) is FileKind.DICOM:
                headers.extend(read_slice_headers(path))
            else:
                series.append(_new_nifti(path, series))
        except UnreadableFileError as error:
            skipped.append(SkippedFile(_shown_path(path, root), str(error)))
        if on_progress is not None:
            on_progress(done, len(entries))
    stacks, dropped = group_slices(headers)
    series.extend(describe_stack(stack) for stack in stacks)
    skipped.extend(_dropped_files(dropped, root))
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

    Slices that cannot be decoded are left out with the problem `undecodable_slices`.

    Raises:
        ScanError: an index outside the series, too many slices to hold, or none can be decoded.
    """
    indices = _checked_indices(series, slice_indices)
    array = np.empty((len(indices), *series.shape[1:]), dtype=np.float32)
    failures: dict[int, str] = {}
    for slots, slices in _decode_by_file(series, indices, failures, on_progress):
        array[slots] = slices
    if len(failures) == len(indices):
        reason = _most_frequent(failures.values())
        raise ScanError(f"no slice of the series can be decoded: {reason}; export it once more")
    kept = np.array([slot for slot in range(len(indices)) if slot not in failures])
    array = array[kept] if failures else array
    problems = _decoding_problems(series, float(array.min()), failures)
    return Volume(series, indices[kept], array, problems)


def measure_range(
    series: Series, on_progress: OnProgress | None = None
) -> tuple[tuple[float, float] | None, tuple[Problem, ...]]:
    """Lowest and highest value of all slices, a part in memory at a time, and all problems.

    Values are those of `read_volume`: padding of a CT counts as air. None if none can be decoded.
    """
    failures: dict[int, str] = {}
    lowest, highest = np.inf, -np.inf
    every = np.arange(series.shape[0])
    for _, slices in _decode_by_file(series, every, failures, on_progress):
        lowest, highest = min(lowest, float(slices.min())), max(highest, float(slices.max()))
    value_range = None if np.isinf(lowest) else (lowest, highest)
    return value_range, _decoding_problems(series, lowest, failures)


def _decode_by_file(
    series: Series,
    indices: NDArray[np.int64],
    failures: dict[int, str],
    on_progress: OnProgress | None,
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Yield (places in `indices`, slices [N, rows, columns]) of each file, or part of a large one.

    Places of the others go into `failures` with the reason.
    """
    by_path: dict[Path, list[int]] = defaultdict(list)
    for slot, index in enumerate(indices):
        by_path[series.sources[index].path].append(slot)
    at_once = max(1, MAX_BYTES_AT_ONCE // (4 * series.shape[1] * series.shape[2]))
    done = 0
    with CodecProcess() as codecs:
        for path, all_slots in by_path.items():
            for start in range(0, len(all_slots), at_once):
                slots = all_slots[start : start + at_once]
                frames = [series.sources[indices[slot]].frame for slot in slots]
                try:
                    yield slots, _decode(path, frames, series, codecs)
                except UnreadableFileError as error:
                    failures.update(dict.fromkeys(slots, str(error)))
                done += len(slots)
                if on_progress is not None:
                    on_progress(done, len(indices))


def _list_entries(scan: Path) -> list[tuple[Path, str | None]]:
    if not scan.exists():
        raise ScanError(
            f"'{scan}' does not exist; expected a folder of DICOM files or a NIfTI file"
        )
    entries = []
    for entry in walk_files(scan):
        entries.append(entry)
        if len(entries) > MAX_FILES:
            raise ScanError(
                f"'{scan}' holds more than {MAX_FILES} files; choose one study's folder"
            )
    if not entries:
        raise ScanError(f"'{scan}' is empty; expected a folder of DICOM files or a NIfTI file")
    return entries


def _new_nifti(path: Path, known: list[Series]) -> Series:
    one = read_nifti_series(path)
    if any(one.series_uid == other.series_uid for other in known):
        raise UnreadableFileError("duplicate: the same content as another file")
    return one


def _dropped_files(dropped: list[tuple[SliceHeader, str]], root: Path) -> list[SkippedFile]:
    """One line per file: a multi-frame object may have many frames left out for one reason."""
    reasons = {(header.source.path, reason) for header, reason in dropped}
    return [SkippedFile(_shown_path(path, root), reason) for path, reason in reasons]


def _shown_path(path: Path, root: Path) -> str:
    """Relative, and safe to print: a name may hold terminal escapes or bytes that are no text."""
    name = path.relative_to(root).as_posix()
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name
    )


def _nothing_readable(scan: Path, skipped: list[SkippedFile]) -> str:
    reason = _most_frequent(file.reason for file in skipped)
    return (
        f"no CT, MR or X-ray image in '{scan}': {len(skipped)} files skipped, most often because: "
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


def _decode(
    path: Path, frames: list[int], series: Series, codecs: CodecProcess
) -> NDArray[np.float32]:
    if sniff(path) is FileKind.NIFTI:
        return decode_nifti(path, frames)
    if parse_guarded(lambda: is_compressed(path)):
        slices = codecs.decode(path, frames, series.modality)
    else:
        slices = np.stack(decode_slices(path, frames, series.modality))
    if slices.shape[1:] != series.shape[1:]:
        raise UnreadableFileError("changed since it was listed")
    return slices


def _decoding_problems(
    series: Series, lowest: float, failures: dict[int, str]
) -> tuple[Problem, ...]:
    """The problems of the series and those its pixels show; `lowest` is their smallest value."""
    problems = list(series.problems)
    if failures:
        reason = _most_frequent(failures.values())
        detail = f"{len(failures)} slices left out, most often because: {reason}"
        problems.append(Problem("undecodable_slices", detail))
    is_flagged = any(problem.name == "not_hounsfield" for problem in problems)
    if series.modality is Modality.CT and not is_flagged and PLAUSIBLE_AIR_HU < lowest < np.inf:
        detail = f"no voxel is below {PLAUSIBLE_AIR_HU:g}, so nothing is air: not Hounsfield units"
        problems.append(Problem("not_hounsfield", detail))
    return tuple(problems)
