"""Whose scan it is, read from a study's files each time a site wants it shown; kept nowhere."""

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from edge_medgemma.runtime.clinic.settings import Site
from edge_medgemma.runtime.slicing.dicom.dicom_file import parse_guarded, read_header
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError

_TAGS = ["SpecificCharacterSet", "AccessionNumber", "PatientName", "PatientID",
         "PatientBirthDate", "StudyDate"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """What the site lets the page show; empty fields for the rest."""

    name: str = ""
    number: str = ""
    birth_date: str = ""
    accession: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be shown."""
        return not (self.name or self.number or self.birth_date or self.accession)


NOBODY = Identity()


def read_identity(folder: Path, site: Site) -> Identity:
    """From the first file of a study's folder in the spool that can be read."""
    if not (site.show_patient or site.show_accession):
        return NOBODY
    for path in sorted(folder.glob("*.dcm")):
        header = _read_header(path)
        if header is None:
            continue
        accession = _text(header, "AccessionNumber") if site.show_accession else ""
        if not site.show_patient:
            return Identity(accession=accession)
        return Identity(
            _name(_text(header, "PatientName")),
            _text(header, "PatientID"),
            _date(_text(header, "PatientBirthDate")),
            accession,
        )
    return NOBODY


def _read_header(path: Path) -> Dataset | None:
    try:
        return parse_guarded(lambda: read_header(path, _TAGS)[0])
    except UnreadableFileError:
        return None


def _text(header: Dataset, keyword: str) -> str:
    text = str(header.get(keyword, "") or "")
    return "".join(letter for letter in text if letter.isprintable())[:64]


def _name(name: str) -> str:
    """`Doe^Jane^^^=...` as `Doe, Jane`: the groups after `=` say the same in other letters."""
    parts = [part.strip() for part in name.split("=")[0].split("^")[:2]]
    return ", ".join(part for part in parts if part)


def _date(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if len(date) == 8 and date.isdigit() else ""
