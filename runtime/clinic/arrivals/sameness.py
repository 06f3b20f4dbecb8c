"""Whether two files with the same UIDs hold the same image."""

import hashlib
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from edge_medgemma.runtime.clinic.arrivals.identity import PARSER
from edge_medgemma.runtime.slicing.dicom import patient
from edge_medgemma.runtime.slicing.dicom.dicom_file import opened_at_pixels
from edge_medgemma.runtime.slicing.dicom.headers import KEYWORDS
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError

_ENCODINGS_OF_NO_MATTER = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
"""Pixels have the same bytes in both."""

_PART_BYTES = 1024 * 1024

_MEANINGFUL = sorted(set(KEYWORDS) - {*patient.KEYWORDS, "StudyDate"})


def is_same_object(path: Path, other: Path) -> bool:
    """Whether both are byte for byte the same, or the same pixels under headers that place them alike.

    An archive changes headers (patient number, dates, the way they are encoded) of what a scanner
    sent; that makes no other image. What cannot be told without decoding is another image.
    """
    if _digest(path) == _digest(other):
        return True
    try:
        with PARSER:
            return _content(path) == _content(other)
    except UnreadableFileError:
        return False


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _content(path: Path) -> tuple[str, tuple[str, ...], bytes]:
    with opened_at_pixels(path) as (dataset, file):
        syntax = dataset.file_meta.TransferSyntaxUID
        kind = "native" if syntax in _ENCODINGS_OF_NO_MATTER else str(syntax)
        pixels = hashlib.sha256()
        while part := file.read(_PART_BYTES):
            pixels.update(part)
        return kind, _meaning(dataset), pixels.digest()


def _meaning(dataset: Dataset) -> tuple[str, ...]:
    """Values that say what the pixels show and where; whom they show was read with the study."""
    return tuple(str(dataset.get(keyword, "")) for keyword in _MEANINGFUL)
