"""Accession numbers, for a report that a person asks to have them on; nothing else keeps them."""

from collections.abc import Iterable, Mapping

from edge_medgemma.runtime.slicing.dicom.dicom_file import parse_guarded, read_header
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.volume import Series

_MOST_LETTERS = 16
"""Of a short string (PS3.5 6.2), which an accession number (0008,0050) is."""


def read_accession_numbers(series: Iterable[Series]) -> Mapping[str, str]:
    """Study instance UID to accession number, of those that state one; several joined by a comma."""
    found: dict[str, list[str]] = {}
    for one in series:
        number = _accession_number(one) if one.study_uid else ""
        numbers = found.setdefault(one.study_uid, [])
        if number and number not in numbers:
            numbers.append(number)
    return {study_uid: ", ".join(numbers) for study_uid, numbers in found.items() if numbers}


def _accession_number(series: Series) -> str:
    try:
        dataset, _ = parse_guarded(lambda: read_header(series.sources[0].path, ["AccessionNumber"]))
    except UnreadableFileError:
        return ""
    text = str(dataset.get("AccessionNumber") or "").strip()
    return "".join(letter for letter in text if letter.isprintable())[:_MOST_LETTERS]
