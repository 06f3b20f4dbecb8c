"""Radiographs as PNG or JPEG pictures: listed from their headers, made DICOM when their turn comes.

The ordinary route reads them then, so that a picture is triaged by the very code that triages a scan.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from edge_medgemma.calibration.evaluation.datasets.layout import DatasetLayout
from edge_medgemma.calibration.evaluation.matching import names_of_files
from edge_medgemma.calibration.evaluation.records import LabelRow, Labels
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError, sniff
from edge_medgemma.runtime.slicing.files.limits import MAX_PIXELS, MAX_ROWS_COLUMNS
from edge_medgemma.runtime.slicing.files.unpack_folder import new_folder
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import (
    BodyPart,
    Modality,
    Problem,
    ScanListing,
    Series,
    SkippedFile,
    SliceSource,
    View,
)
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.worklist import StudyTask, plan_studies

SUFFIXES = (".png", ".jpg", ".jpeg")

COLOUR_TOLERANCE = 8
"""Most that channels of a grey picture differ, of 255: JPEG does not keep them equal."""

PICTURE_FILE = Problem(
    "picture_file",
    "the radiograph is a PNG or JPEG picture: its grey values are not those of the detector",
)

_VIEW_POSITIONS = {View.PA: "PA", View.AP: "AP", View.LATERAL: "LL"}


def is_picture_folder(scans: Path) -> bool:
    """Whether a folder holds pictures and neither DICOM nor NIfTI nor an archive."""
    pictures = 0
    for path in _files(scans):
        if path.suffix.lower() in SUFFIXES:
            pictures += 1
            continue
        try:
            sniff(path)
        except UnreadableFileError:
            continue
        return False
    return pictures > 0


def find_pictures(
    scans: Path,
    layout: DatasetLayout,
    labels: Labels,
    on_progress: Callable[[int, int], None] | None = None,
) -> ScanListing:
    """Every picture below a folder as a series of one image, in the order of paths.

    Their sources are the pictures themselves; `as_dicom` makes of a task on them one that can be
    triaged. UIDs follow from path and size of a file.

    Args:
        scans: folder of the pictures.
        layout: of the dataset: which pictures are one examination, and of what part.
        labels: where the projection and the pixel spacing stand.
        on_progress: counts files.

    Raises:
        ScanError: there is no picture.
    """
    root = scans.resolve()
    paths = [path for path in _files(root) if path.suffix.lower() in SUFFIXES]
    rows = {layout.name_of(row.key): row for row in labels.rows}
    part = load_protocol(layout.protocol).body_parts[0] if layout.protocol else BodyPart.UNKNOWN
    series, skipped = [], []
    for done, path in enumerate(paths, start=1):
        name = path.relative_to(root).as_posix()
        try:
            series.append(_series(path, name, layout, part, _row_of(path, root, layout, rows)))
        except UnreadableFileError as error:
            skipped.append(SkippedFile(name, str(error)))
        if on_progress is not None:
            on_progress(done, len(paths))
    if not series:
        raise ScanError(
            f"no PNG or JPEG picture that can be read in '{scans}' (files skipped: {len(skipped)}); "
            "give the folder that holds the pictures"
        )
    return ScanListing(tuple(series), tuple(skipped))


@contextmanager
def as_dicom(task: StudyTask) -> Iterator[StudyTask]:
    """The task with its pictures as DICOM objects in a folder that goes with the block.

    A task on a scan is handed on as it is. Pictures that cannot be read leave the task without a
    series and with a problem that says why.
    """
    drawn = task.series
    if drawn is None or task.protocol is None or PICTURE_FILE not in drawn.problems:
        yield task
        return
    with _folder() as folder:
        try:
            write_radiographs(drawn, folder)
            (own,) = plan_studies(find_series(folder), task.protocol)
        except (UnreadableFileError, ScanError) as error:
            problem = Problem("no_series", f"The picture could not be read: {error}.")
            yield replace(task, series=None, series_reason=str(error), problems=(problem,))
            return
        yield replace(
            task,
            series=own.series,
            series_reason=own.series_reason,
            problems=(*own.problems, PICTURE_FILE),
        )


@contextmanager
def _folder() -> Iterator[Path]:
    """A private folder that goes with the block; of a killed process, at the next reading of a scan."""
    folder = new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_radiographs(series: Series, folder: Path) -> None:
    """Write each picture of a series of `find_pictures` as a DX image of `folder`.

    Raises:
        UnreadableFileError: damaged, in colour, or too large.
    """
    for number, source in enumerate(series.sources):
        pixels = read_grey(source.path)
        image = _image(series, source.sop_instance_uid, number)
        if len(series.sources) == 1 and series.spacing_mm[1] > 0:
            image.ImagerPixelSpacing = [f"{step:.6g}" for step in series.spacing_mm[1:]]
        _set_pixels(image, pixels)
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)


def read_grey(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Grey values [rows, columns] of a picture, 8 bit or 16 bit as it has them.

    Raises:
        UnreadableFileError: damaged, in colour, partly transparent, or too large.
    """
    with _opened(path) as image:
        try:
            image.load()
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableFileError("damaged or truncated picture") from error
        if image.mode in ("I", "I;16", "I;16B", "I;16L"):
            return _sixteen_bit(np.asarray(image))
        if image.mode == "P":
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        if image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
            raise UnreadableFileError(f"picture of kind {image.mode}; expected grey values")
        if image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema() != (255, 255):
            raise UnreadableFileError("picture with transparent parts; expected grey values")
        if image.mode in ("RGB", "RGBA"):
            channels = np.asarray(image.convert("RGB"), dtype=np.int16)
            if int(np.ptp(channels, axis=2).max()) > COLOUR_TOLERANCE:
                raise UnreadableFileError("colour picture, not a radiograph")
        return np.asarray(image.convert("L"))


def _sixteen_bit(values: NDArray[np.generic]) -> NDArray[np.uint16]:
    wide = values.astype(np.int64)
    if wide.min() < 0 or wide.max() > np.iinfo(np.uint16).max:
        raise UnreadableFileError("picture with values beyond 16 bits")
    return wide.astype(np.uint16)


def _files(scans: Path) -> Iterator[Path]:
    """Files below a folder in the order of their paths; links are not followed to folders."""
    for folder, folders, names in os.walk(scans):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture whose header was read and whose size is one that may be decoded."""
    try:
        image = Image.open(path, formats=("PNG", "JPEG"))
    except UnidentifiedImageError as error:
        raise UnreadableFileError("neither PNG nor JPEG by its content") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableFileError("damaged picture, or too large") from error
    with image:
        columns, rows = image.size
        if max(rows, columns) > MAX_ROWS_COLUMNS or rows * columns > MAX_PIXELS:
            raise UnreadableFileError(f"{rows} × {columns} pixels; too large to read")
        yield image


def _row_of(
    path: Path, root: Path, layout: DatasetLayout, rows: dict[str, LabelRow]
) -> LabelRow | None:
    names = (layout.name_of(name) for name in names_of_files((path,), root, images=1).names)
    found = {row.key: row for name in names if (row := rows.get(name)) is not None}
    return next(iter(found.values())) if len(found) == 1 else None


def _series(
    path: Path, name: str, layout: DatasetLayout, part: BodyPart, row: LabelRow | None
) -> Series:
    with _opened(path) as image:
        columns, rows = image.size
    attributes = {} if row is None else row.attributes
    identity = f"{name} {path.stat().st_size}"
    uid = generate_uid(entropy_srcs=["picture", identity])
    width_mm, height_mm = (float(attributes.get(f"{side}_mm", 0)) for side in ("width", "height"))
    return Series(
        study_uid=generate_uid(entropy_srcs=["examination", layout.study_of(name)]),
        series_uid=_series_uid(uid),
        modality=Modality.DX,
        body_part=part,
        shape=(1, rows, columns),
        affine_lps_mm=np.eye(4),
        positions_mm=np.zeros(1),
        spacing_mm=(1.0, height_mm / rows, width_mm / columns),
        orientation="projection",
        sources=(SliceSource(path, 0, uid),),
        problems=(PICTURE_FILE,),
        views=(layout.view_of(name, attributes),),
    )


def _series_uid(sop_instance_uid: str) -> str:
    return str(generate_uid(entropy_srcs=["series", sop_instance_uid]))


def _image(series: Series, sop_instance_uid: str, number: int) -> FileDataset:
    """Header of one image: DX image module, PS3.3 A.26."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(None, Dataset(), file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = DigitalXRayImageStorageForPresentation
    image.SOPInstanceUID = sop_instance_uid
    image.StudyInstanceUID = series.study_uid
    image.SeriesInstanceUID = _series_uid(sop_instance_uid)
    image.Modality = "DX"
    image.ImageType = ["DERIVED", "PRIMARY", ""]
    image.PresentationIntentType = "FOR PRESENTATION"
    image.PatientName, image.PatientID = "", ""
    image.InstanceNumber = number + 1
    if series.body_part is not BodyPart.UNKNOWN:
        image.BodyPartExamined = series.body_part.value.upper()
    view = series.views[number]
    if view in _VIEW_POSITIONS:
        image.ViewPosition = _VIEW_POSITIONS[view]
    elif view is View.FRONTAL:  # view position has no term for either of PA and AP
        image.SeriesDescription = "FRONTAL"
    return image


def _set_pixels(image: Dataset, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    bits = 8 * pixels.itemsize
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = bits
    image.HighBit = bits - 1
    image.PixelRepresentation = 0
    if bits == 8:  # a picture for a screen: 0 is black and 255 white
        image.WindowCenter, image.WindowWidth = "128", "256"
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    image.PixelData = data + b"\0" * (len(data) % 2)
