"""NIfTI volumes read as series: one file one series, reoriented to the patient."""

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from edge_medgemma.runtime.slicing.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.geometry import plane_name
from edge_medgemma.runtime.slicing.limits import MAX_ROWS_COLUMNS, MAX_VOLUME_BYTES
from edge_medgemma.runtime.slicing.quiet import silenced
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Problem, Series, SliceSource

AIR_BELOW_HU = -500
"""A volume of whole numbers that reaches this low is taken for CT: in CT that is air, and MR
magnitudes are not negative."""

THICK_SLICE_RATIO = 1.5
"""A volume whose coarsest axis exceeds its finest by this was acquired as slices along it."""

THIN_SLAB_RATIO = 2
"""So was one with this many times fewer voxels along one axis than along the next."""


def read_nifti_series(path: Path) -> Series:
    """Describe one NIfTI file. The values are read too: nothing else tells CT from MR.

    Raises:
        UnreadableFileError: damaged, too large, or not a volume of numbers.
    """
    volume, affine, time_points = _load(path)
    stack, affine = _as_slices(volume, affine)
    finite = stack[np.isfinite(stack)]
    if not finite.size:
        raise UnreadableFileError("NIfTI without a finite value")
    modality = _guess_modality(finite)
    problems = [
        Problem("modality_guessed", f"NIfTI does not tell the kind of scan; {modality} is assumed")
    ]
    if time_points > 1:
        problems.append(Problem("time_series", f"{time_points} time points; the first is read"))
    if finite.size < stack.size:
        count = stack.size - finite.size
        problems.append(Problem("non_finite_values", f"{count} voxels are not numbers; set to air"))
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    normal = affine[:3, 0] / steps[0]
    uid = generate_uid(entropy_srcs=[_digest(path)])
    return Series(
        study_uid=uid,
        series_uid=uid,
        modality=modality,
        body_part=BodyPart.UNKNOWN,
        shape=cast(tuple[int, int, int], stack.shape),
        affine_lps_mm=affine,
        positions_mm=(affine[:3, 3] @ normal) + np.arange(len(stack)) * steps[0],
        spacing_mm=(float(steps[0]), float(steps[1]), float(steps[2])),
        orientation=plane_name(normal),
        sources=tuple(SliceSource(path, index, "") for index in range(len(stack))),
        problems=tuple(problems),
    )


def decode_nifti(path: Path, indices: Sequence[int]) -> NDArray[np.float32]:
    """Slices [N, rows, columns] of one file, values that are not numbers set to the lowest.

    Raises:
        UnreadableFileError: as `read_nifti_series`.
    """
    volume, affine, _ = _load(path)
    stack, _ = _as_slices(volume, affine)
    slices = np.ascontiguousarray(stack[list(indices)])
    finite = np.isfinite(slices)
    if not finite.all():
        slices[~finite] = slices[finite].min() if finite.any() else 0
    return slices


def _load(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64], int]:
    """Scaled values [i, j, k] of the first time point, affine to RAS mm, number of time points."""
    try:
        with path.open("rb") as file, silenced("nibabel.global"):
            is_gzipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream: Any = gzip.GzipFile(fileobj=file) if is_gzipped else file
            is_second = stream.read(4) in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
            stream.seek(0)
            kind = nibabel.Nifti2Image if is_second else nibabel.Nifti1Image
            image = kind.from_stream(stream)
            _check(image)
            shape = (*image.shape, 1, 1)
            first = image.dataobj[(..., *(0,) * (len(image.shape) - 3))]
            values = np.asarray(first, dtype=np.float32)
    except UnreadableFileError:
        raise
    except (EOFError, zlib.error) as error:
        raise UnreadableFileError("truncated NIfTI file") from error
    # nibabel raises errors of many kinds on a damaged header, and quotes values in them
    except Exception as error:
        raise UnreadableFileError("damaged: not readable as NIfTI") from error
    return values, np.asarray(image.affine, dtype=np.float64), math.prod(shape[3:])


def _check(image: Any) -> None:
    shape = image.shape
    if image.get_data_dtype().kind not in "iuf" or len(shape) < 3:
        raise UnreadableFileError("NIfTI that is not a 3D volume of numbers")
    if max(shape[:3]) > MAX_ROWS_COLUMNS or 4 * math.prod(shape[:3]) > MAX_VOLUME_BYTES:
        raise UnreadableFileError("NIfTI volume too large to read")
    if abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise UnreadableFileError("NIfTI whose affine gives no volume")


def _as_slices(
    volume: NDArray[np.float32], affine_ras_mm: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Reorder [i, j, k] to [slice, row, column] as a viewer shows them; affine to LPS mm.

    Slices ascend towards left, posterior or head. Rows run down the picture: to the back in axial
    slices, to the feet otherwise. Columns run to the patient's left, in sagittal ones to the back.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_ras_mm
    axes = io_orientation(lps)
    shape = volume.shape
    volume = apply_orientation(volume, axes)
    lps = lps @ inv_ornt_aff(axes, shape)
    slice_axis = _slice_axis(volume.shape, np.linalg.norm(lps[:3, :3], axis=0))
    order = {2: (2, 1, 0), 1: (1, 2, 0), 0: (0, 2, 1)}[slice_axis]
    stack = volume.transpose(order)
    lps = lps[:, [*order, 3]]
    if slice_axis != 2:
        stack = stack[:, ::-1]
        lps[:3, 3] += lps[:3, 1] * (stack.shape[1] - 1)
        lps[:3, 1] *= -1
    return stack, lps


def _slice_axis(shape: tuple[int, ...], steps_mm: NDArray[np.float64]) -> int:
    """The axis of left, posterior and head that slices follow; head (axial) if none stands out."""
    coarsest, thinnest = int(np.argmax(steps_mm)), int(np.argmin(shape))
    if steps_mm[coarsest] > THICK_SLICE_RATIO * steps_mm.min():
        return coarsest
    is_slab = sorted(shape)[1] > THIN_SLAB_RATIO * shape[thinnest]
    return thinnest if is_slab else 2


def _guess_modality(finite: NDArray[np.float32]) -> Modality:
    is_hounsfield = finite.min() <= AIR_BELOW_HU and bool(np.all(finite == np.rint(finite)))
    return Modality.CT if is_hounsfield else Modality.MR


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
