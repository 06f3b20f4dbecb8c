"""What results take over from the images that they are about: patient, study, references."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.dicom.patient import Patient, number_people, patient_of
from edge_medgemma.runtime.slicing.silence import silenced

UTF_8 = "ISO_IR 192"

_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Type 2 of PS3.3 C.7.1.1 and C.7.2.1: empty where the images lack them, never invented."""

_OPTIONAL = ("IssuerOfPatientID", "StudyDescription", "PatientAge")

_REFERENCES = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber",
    "Modality", "NumberOfFrames", "Laterality", "ProcedureCodeSequence", "Rows",
    "Columns",
)  # fmt: skip

_SEXES = ("M", "F", "O")
"""PS3.3 C.7.1.1; what else stands there is not written on."""


class SeveralPeopleError(ScanError):
    """Images of more than one person carry the number of the study: a result would be filed under one."""


@dataclass(frozen=True, slots=True)
class SourceStudy:
    """A study as its images name it."""

    identity: Dataset
    """Attributes of patient and study, UTF-8, valid; with the references of one image."""
    images: Mapping[str, Dataset]
    """SOP Instance UID to the references of the images that were asked for, patient and study with
    them."""
    series_count: int
    instance_count: int


def read_source(folder: Path, study_uid: str, wanted: Collection[str]) -> SourceStudy:
    """Headers of a study's images.

    Args:
        folder: of the study in the spool
        study_uid: DICOM (0020,000D); objects of other studies are passed over
        wanted: SOP Instance UIDs of the images to be referred to

    Raises:
        ScanError: no image of the study is there.
        SeveralPeopleError: its images are not all of one person.
    """
    images: dict[str, Dataset] = {}
    series: set[str] = set()
    instances: set[str] = set()
    patients: set[Patient] = set()
    first: Dataset | None = None
    for header in _headers(folder):
        if str(header.get("StudyInstanceUID", "")).strip() != study_uid:
            continue
        uid = str(header.SOPInstanceUID)
        instances.add(uid)
        with silenced("pydicom"):
            patients.add(patient_of(header))
        series.add(str(header.get("SeriesInstanceUID", "")))
        if first is None or (uid in wanted and uid not in images):
            header = _cured(header)
            first = first or header
        if uid in wanted:
            images.setdefault(uid, header)
    if first is None:
        raise ScanError(
            "no image of the study is in the spool any more: nothing was made for delivery; send the "
            "study again"
        )
    if len(set(number_people(patients).values())) > 1:
        raise SeveralPeopleError(
            "images of several people carry the number of this study: nothing is sent of it; find out "
            "whose scan it is, and send each person's images under a study number of their own"
        )
    identity = next(iter(images.values()), first)
    return SourceStudy(identity, images, len(series), len(instances))


def text_of(identity: Dataset, keyword: str) -> str:
    """An attribute as one text; a backslash, which parts values in DICOM, stands where it stood."""
    value = identity.get(keyword)
    if isinstance(value, MultiValue):
        return "\\".join(map(str, value)).strip()
    return "" if value is None else str(value).strip()


def _headers(folder: Path) -> Iterator[Dataset]:
    """The attributes that are wanted, of each file that can be read as DICOM with a reference."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        header = None if path.name.startswith(".") else _header(path)  # else still being written
        if header is not None:
            yield header


def _header(path: Path) -> Dataset | None:
    tags = [*_REQUIRED, *_OPTIONAL, *_REFERENCES, "SpecificCharacterSet"]
    with silenced("pydicom"), contextlib.suppress(Exception):  # it raises anything on damaged files
        header = dcmread(path, stop_before_pixels=True, force=True, specific_tags=tags)
        if header.get("SOPInstanceUID") and header.get("SOPClassUID"):
            return header
    return None


def _cured(header: Dataset) -> Dataset:
    """The attributes decoded, in UTF-8, with empty ones for those that are missing or not valid."""
    cured = Dataset()
    with silenced("pydicom"):
        for keyword in (*_REQUIRED, *_OPTIONAL, *_REFERENCES):
            if keyword in header:
                cured[keyword] = header[keyword]  # decoded here, by the source's character set
        cured.SpecificCharacterSet = UTF_8
        for keyword in _REQUIRED:
            if cured.get(keyword) is None:
                setattr(cured, keyword, "")
        for keyword in ("PatientBirthDate", "StudyDate"):
            setattr(cured, keyword, _valid(str(cured[keyword].value), DA))
        cured.StudyTime = _valid(str(cured.StudyTime), TM)
        sex = str(cured.PatientSex).strip().upper()
        cured.PatientSex = sex if sex in _SEXES else ""
    return cured


def _valid(text: str, kind: type) -> str:
    """The text where it is a date or time of DICOM, else an empty one."""
    try:
        kind(text.strip())
    except ValueError:
        return ""
    return text.strip()
