"""What is read of an arriving object: which it is, where it belongs, where its slice lies. No pixels."""

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from edge_medgemma.runtime.clinic.maker import MANUFACTURER
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.dicom.dicom_file import parse_guarded, read_header
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError

_KEYWORDS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Manufacturer",
    "ImageType", "ImagePositionPatient", "ImageOrientationPatient",
]  # fmt: skip

_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"

_UID_CHARACTERS = frozenset("0123456789.")
_MAX_UID_LENGTH = 64

_IMAGELESS_PREFIXES = (
    "1.2.840.10008.5.1.4.1.1.88.",  # structured reports and key object selections
    "1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    "1.2.840.10008.5.1.4.1.1.66",  # raw data, registrations, segmentations, surfaces, tractography
    "1.2.840.10008.5.1.4.1.1.9.",  # waveforms
    "1.2.840.10008.5.1.4.1.1.104.",  # encapsulated documents
    "1.2.840.10008.5.1.4.1.1.481.",  # radiotherapy, whose only images (.1) come as projections
    "1.2.840.10008.5.1.4.1.1.67",  # real world value mapping
    "1.2.840.10008.5.1.4.1.1.68.",  # surface scans
    "1.2.840.10008.5.1.4.1.1.78.",  # lens and visual field measurements
    "1.2.840.10008.5.1.4.1.1.79.",
    "1.2.840.10008.5.1.4.1.1.200.",  # implant plans, protocols
)
"""Storage SOP classes (PS3.4 B.5) without an image to look at, or with one made from others."""

PARSER = threading.Lock()
"""pydicom's settings and Python's filters of warnings belong to the whole process."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Where the slice of a single-frame image lies."""

    stack: tuple[str, ...]
    """Slices of one stack have the same: series, and direction cosines to two decimals."""
    orientation: tuple[float, ...]
    """[6]: direction cosines of a row, then of a column."""
    position_mm: tuple[float, float, float]
    """LPS of the centre of the first pixel."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which object a file holds."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    is_image: bool
    """Something that may be looked at, whether or not it can be decoded."""
    is_own: bool
    """Made by this program."""
    plane: Plane | None
    """None for localizers and what has no position in its main header."""

    @property
    def is_secondary(self) -> bool:
        """A secondary capture, of one frame or many."""
        return self.sop_class_uid == _SECONDARY or self.sop_class_uid.startswith(f"{_SECONDARY}.")


def read_identity(path: Path) -> Identity:
    """Identity of a DICOM file.

    Raises:
        ScanError: no DICOM, damaged, or without the UIDs that say where it belongs. The message holds
            nothing of the file.
    """
    try:
        with PARSER:
            return parse_guarded(lambda: _identity(read_header(path, _KEYWORDS)[0]))
    except UnreadableFileError as error:
        raise ScanError(f"not kept: {error}") from error


def is_media_directory(path: Path) -> bool:
    """Whether a file is the DICOMDIR of a disc, which belongs to no study; False where it is damaged."""
    from pydicom.filereader import read_file_meta_info

    with PARSER, contextlib.suppress(Exception):  # pydicom raises anything on a damaged file
        found = read_file_meta_info(path).get("MediaStorageSOPClassUID")
        return bool(found == MediaStorageDirectoryStorage)
    return False


def _identity(dataset: Dataset) -> Identity:
    uids = {
        name: _uid(dataset, name)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    }
    sop_class = uids["SOPClassUID"]
    is_own = str(dataset.get("Manufacturer", "")).strip() == MANUFACTURER
    return Identity(
        study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
        sop_uid=uids["SOPInstanceUID"],
        sop_class_uid=sop_class,
        is_image=not sop_class.startswith(_IMAGELESS_PREFIXES),
        is_own=is_own,
        plane=_plane(dataset, uids["SeriesInstanceUID"]),
    )


def _uid(dataset: Dataset, keyword: str) -> str:
    uid = str(dataset.get(keyword, "")).strip(" \0")
    if not uid or len(uid) > _MAX_UID_LENGTH or not _UID_CHARACTERS.issuperset(uid):
        raise UnreadableFileError(f"{keyword} is missing or no UID")
    return uid


def _plane(dataset: Dataset, series_uid: str) -> Plane | None:
    if "LOCALIZER" in (dataset.get("ImageType") or ()):
        return None
    try:
        position = tuple(float(number) for number in dataset.ImagePositionPatient)
        orientation = tuple(float(number) for number in dataset.ImageOrientationPatient)
    except (AttributeError, TypeError, ValueError):
        return None
    if len(position) != 3 or len(orientation) != 6:
        return None
    stack = (series_uid, *(f"{cosine:.2f}" for cosine in orientation))
    return Plane(stack, orientation, position)
