"""NIfTI volumes read as series: one file one series, reoriented to the patient."""

import hashlib
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from edge_medgemma.runtime.slicing.files.discovery import (
    GZIP_MAGIC,
    UnreadableFileError,
    open_regular,
)
from edge_medgemma.runtime.slicing.files.gunzip import GunzippedFile
from edge_medgemma.runtime.slicing.files.limits import (
    MAX_BYTES_AT_ONCE,
    MAX_GUNZIPPED_BYTES,
    MAX_HEADER_BYTES,
    MAX_NIFTI_BYTES,
    MAX_PIXELS,
    MAX_ROWS_COLUMNS,
)
from edge_medgemma.runtime.slicing.geometry import plane_name
from edge_medgemma.runtime.slicing.hounsfield import AIR_BELOW_HU, looks_like_hounsfield
from edge_medgemma.runtime.slicing.silence import silenced
from edge_medgemma.runtime.slicing.values import ValueStatistics
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Problem, Series, SliceSource

UNIT_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
"""Millimetres of one unit of space, by nibabel's names of `xyzt_units`; unknown is taken for mm."""

SAME_AFFINE_MM = 1.0
"""Distance of a corner by sform and by qform that rounding of the quaternion may make."""

ORIENTATION_NOT_STATED = Problem(
    "orientation_not_stated",
    "neither sform nor qform is set, so left and right, up and down are guesses",
)

ORIENTATION_CONFLICT = Problem(
    "orientation_conflict",
    "sform and qform place the voxels differently, so left and right may be exchanged",
)

THICK_SLICE_RATIO = 1.5
"""A volume whose coarsest axis exceeds its finest by this was acquired as slices along it."""

THIN_SLAB_RATIO = 2
"""So was one with this many times fewer voxels along one axis than along the next."""

MIN_STEP_MM, MAX_STEP_MM = 1e-3, 1e3
"""Voxels outside these are damage."""

MIN_DETERMINANT = 1e-3
"""Least determinant of the unit directions of the axes: less, and two of them are all but parallel."""


def read_nifti_series(path: Path, modality: Modality | None = None) -> Series:
    """Describe one NIfTI file. The values are read too: nothing else tells CT from MR.

    Args:
        path: the file.
        modality: of the scan, where it is known.

    Raises:
        UnreadableFileError: damaged, too large, or not a volume of numbers.
    """
    with _opened(path) as image:
        layout = _layout(image)
        problems = _orientation_problems(image)
        values, finite_count, is_whole = ValueStatistics(Modality.CT), 0, True
        for _, slab in _slabs(image):
            finite = slab[np.isfinite(slab)]
            finite_count += finite.size
            if finite.size:
                values.add(finite)
                is_whole = is_whole and bool(np.all(finite == np.rint(finite)))
        _check_rest(image)
    if not finite_count:
        raise UnreadableFileError("NIfTI without a finite value")
    if modality is None:
        modality = _guessed_modality(values, is_whole=is_whole)
        detail = f"NIfTI does not tell the kind of scan; its values look like {modality}"
        problems.append(Problem("modality_guessed", f"{detail} (--modality says it)"))
    if layout.time_points > 1:
        problems.append(
            Problem("time_series", f"{layout.time_points} time points; the first is read")
        )
    if missing := math.prod(layout.shape) - finite_count:
        problems.append(
            Problem("non_finite_values", f"{missing} voxels are not numbers; set to air")
        )
    steps = np.linalg.norm(layout.affine_lps_mm[:3, :3], axis=0)
    normal = layout.affine_lps_mm[:3, 0] / steps[0]
    uid = generate_uid(entropy_srcs=[_digest(path)])
    count = layout.shape[0]
    return Series(
        study_uid=uid,
        series_uid=uid,
        modality=modality,
        body_part=BodyPart.UNKNOWN,
        shape=layout.shape,
        affine_lps_mm=layout.affine_lps_mm,
        positions_mm=(layout.affine_lps_mm[:3, 3] @ normal) + np.arange(count) * steps[0],
        spacing_mm=(float(steps[0]), float(steps[1]), float(steps[2])),
        orientation=plane_name(normal),
        sources=tuple(SliceSource(path, index, "") for index in range(count)),
        problems=tuple(problems),
    )


def _guessed_modality(values: ValueStatistics, *, is_whole: bool) -> Modality:
    """CT where the histogram is one, or where whole numbers reach below any magnitude of an MR."""
    lowest = values.range[0] if values.range else 0.0
    is_ct = looks_like_hounsfield(values.counts) or (is_whole and lowest <= AIR_BELOW_HU)
    return Modality.CT if is_ct else Modality.MR


def decode_nifti(path: Path, indices: Sequence[int]) -> NDArray[np.float32]:
    """Slices [N, rows, columns] of one file, values that are not numbers set to the lowest.

    Raises:
        UnreadableFileError: as `read_nifti_series`.
    """
    with _opened(path) as image:
        layout = _layout(image)
        slice_axis = layout.axes[0]
        wanted = np.array(indices, dtype=np.int64)
        if layout.is_flipped[0]:
            wanted = layout.shape[0] - 1 - wanted
        shape = list(image.shape[:3])
        shape[slice_axis] = len(wanted)
        stored = np.empty(shape, dtype=np.float32)
        for first, slab in _slabs(image):
            last = first + slab.shape[2]
            if slice_axis == 2:
                here = (wanted >= first) & (wanted < last)
                stored[:, :, here] = slab[:, :, wanted[here] - first]
            else:
                stored[:, :, first:last] = np.take(slab, wanted, axis=slice_axis)
    slices = stored.transpose(layout.axes)
    slices = np.flip(slices, tuple(axis for axis in (1, 2) if layout.is_flipped[axis]))
    slices = np.ascontiguousarray(slices)
    finite = np.isfinite(slices)
    if not finite.all():
        slices[~finite] = slices[finite].min() if finite.any() else 0
    return slices


@dataclass(frozen=True, slots=True)
class _Layout:
    """How stored voxels [i, j, k] become slices, rows and columns as a viewer shows them.

    Slices ascend towards left, posterior or head. Rows run down the image: to the back in axial
    slices, to the feet otherwise. Columns run to the patient's left, in sagittal ones to the back.
    """

    shape: tuple[int, int, int]
    """Slices, rows, columns."""
    axes: tuple[int, int, int]
    """Stored axis that each of them follows."""
    is_flipped: tuple[bool, bool, bool]
    affine_lps_mm: NDArray[np.float64]
    """[4, 4] from (slice, row, column, 1)."""
    time_points: int


def _layout(image: Any) -> _Layout:
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ _affine_mm(image)
    to_patient = io_orientation(lps)
    if np.isnan(to_patient).any():
        raise UnreadableFileError("NIfTI whose affine gives no volume")
    stored_axis = np.argsort(to_patient[:, 0])
    steps = np.linalg.norm(lps[:3, :3], axis=0)[stored_axis]
    counts = tuple(int(image.shape[axis]) for axis in stored_axis)
    slice_axis = _slice_axis(counts, steps)
    order = {2: (2, 1, 0), 1: (1, 2, 0), 0: (0, 2, 1)}[slice_axis]
    axes = tuple(int(stored_axis[axis]) for axis in order)
    # patient axes run to the left, back and head; rows of images that are not axial to the feet
    wanted_sign = np.where((np.array(order) == 2) & (slice_axis != 2), -1, 1)
    is_flipped = tuple(bool(flag) for flag in to_patient[list(axes), 1] != wanted_sign)
    shape = tuple(counts[axis] for axis in order)
    affine = np.eye(4)
    affine[:3, 3] = lps[:3, 3]
    for place, (axis, flipped) in enumerate(zip(axes, is_flipped, strict=True)):
        affine[:3, place] = -lps[:3, axis] if flipped else lps[:3, axis]
        if flipped:
            affine[:3, 3] += lps[:3, axis] * (shape[place] - 1)
    return _Layout(
        cast(tuple[int, int, int], shape),
        cast(tuple[int, int, int], axes),
        cast(tuple[bool, bool, bool], is_flipped),
        affine,
        math.prod(image.shape[3:]),
    )


def _orientation_problems(image: Any) -> list[Problem]:
    """Whether the header gives one orientation, by the codes of its two affines."""
    sform, sform_code = image.get_sform(coded=True)
    qform, qform_code = image.get_qform(coded=True)
    if not sform_code and not qform_code:
        return [ORIENTATION_NOT_STATED]
    if sform_code and qform_code and sform is not None and qform is not None:
        far_corner = np.array([*(side - 1 for side in image.shape[:3]), 1.0])
        corners = np.array([np.eye(4)[3], far_corner])
        shift = np.abs((np.asarray(sform) - np.asarray(qform)) @ corners.T)[:3]
        # spaces may differ (scanner and template): then only the directions are compared
        is_same_space = sform_code == qform_code
        if not _same_directions(sform, qform) or (is_same_space and shift.max() > SAME_AFFINE_MM):
            return [ORIENTATION_CONFLICT]
    return []


def _same_directions(first: Any, second: Any) -> bool:
    one, other = (io_orientation(np.asarray(affine)) for affine in (first, second))
    return np.array_equal(one, other, equal_nan=True)


def _slice_axis(counts: tuple[int, ...], steps_mm: NDArray[np.float64]) -> int:
    """The axis of left, posterior and head that slices follow; head (axial) if none stands out."""
    coarsest, thinnest = int(np.argmax(steps_mm)), int(np.argmin(counts))
    if steps_mm[coarsest] > THICK_SLICE_RATIO * steps_mm.min():
        return coarsest
    is_slab = sorted(counts)[1] > THIN_SLAB_RATIO * counts[thinnest]
    return thinnest if is_slab else 2


def _affine_mm(image: Any) -> NDArray[np.float64]:
    """[4, 4] from stored voxels to RAS millimetres."""
    space, _ = image.header.get_xyzt_units()
    scale = UNIT_MM.get(space, 1.0)
    affine: NDArray[np.float64] = np.asarray(image.affine, dtype=np.float64).copy()
    affine[:3] *= scale
    return affine


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A nibabel image on an open file, checked but with no values read."""
    try:
        with open_regular(path) as file, silenced("nibabel.global"):
            is_gzipped = file.read(2) == GZIP_MAGIC
            file.seek(0)
            gunzipped = GunzippedFile(file, MAX_GUNZIPPED_BYTES) if is_gzipped else None
            stream: Any = io.BufferedReader(gunzipped) if gunzipped else file
            is_second = stream.read(4) in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
            stream.seek(0)
            kind = nibabel.Nifti2Image if is_second else nibabel.Nifti1Image
            image = kind.from_stream(stream)
            _check(image)
            yield image
    except UnreadableFileError:
        raise
    except (EOFError, zlib.error) as error:
        raise UnreadableFileError("truncated NIfTI file") from error
    # nibabel raises errors of many kinds on a damaged header, and quotes values in them
    except Exception as error:
        raise UnreadableFileError("damaged: not readable as NIfTI") from error


def _check(image: Any) -> None:
    shape, data = image.shape, image.dataobj
    if image.get_data_dtype().kind not in "iuf" or len(shape) < 3 or min(shape) < 1:
        raise UnreadableFileError("NIfTI that is not a 3D volume of numbers")
    voxel_bytes = image.get_data_dtype().itemsize
    if (
        max(shape[:3]) > MAX_ROWS_COLUMNS
        or shape[0] * shape[1] > MAX_PIXELS
        or data.offset > MAX_HEADER_BYTES
        or voxel_bytes * math.prod(shape[:3]) > MAX_NIFTI_BYTES
    ):
        raise UnreadableFileError("NIfTI volume too large to read")
    affine = _affine_mm(image)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if (
        not np.isfinite(affine).all()
        or not (steps.min() >= MIN_STEP_MM and steps.max() <= MAX_STEP_MM)
        or abs(np.linalg.det(affine[:3, :3] / steps)) < MIN_DETERMINANT
    ):
        raise UnreadableFileError("NIfTI whose affine gives no volume")


def _check_rest(image: Any) -> None:
    """Believe the values only if the checksum of a gzip, which stands behind them, is right."""
    stream = image.file_map["image"].fileobj
    gunzipped = getattr(stream, "raw", None)
    if isinstance(gunzipped, GunzippedFile):
        gunzipped.check_rest()


def _slabs(image: Any) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Scaled values [i, j, some k] of the first time point with their first k, ascending."""
    rows, columns, count = image.shape[:3]
    at_once = max(1, MAX_BYTES_AT_ONCE // (4 * rows * columns))
    first_time = (0,) * (len(image.shape) - 3)
    for first in range(0, count, at_once):
        slab = image.dataobj[(..., slice(first, min(first + at_once, count)), *first_time)]
        yield first, np.asarray(slab, dtype=np.float32)


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
