"""Reports beside their references: a CSV, or the Open-I folder with its pictures."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from edge_medgemma.calibration.evaluation.datasets.collect import counted
from edge_medgemma.calibration.evaluation.datasets.csv_table import open_table, shown
from edge_medgemma.runtime.errors import DatasetError

MAX_XML_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class ReportPair:
    """A reference, and the report that is held against it, or the picture to be reported on."""

    number: int
    """Of the row or file, from 1. No name or id of a patient is kept."""
    reference: str
    report: str | None
    """None where it is yet to be generated."""
    picture: Path | None


@dataclass(frozen=True, slots=True)
class ReportSet:
    """References of one dataset."""

    layout: str
    sha256: str
    """Of the texts; pictures are not in it."""
    pairs: tuple[ReportPair, ...]
    notes: tuple[str, ...] = ()
    """One sentence each: what was left out, counted."""

    @property
    def is_given(self) -> bool:
        """Whether the reports are there, and no engine is to write them."""
        return all(pair.report is not None for pair in self.pairs)


def read_reports(path: Path) -> ReportSet:
    """Pairs of a CSV with the columns `reference` and `report` or `picture`, or of a folder of Open-I.

    Raises:
        LabelError: no such file, or no table.
        DatasetError: other columns, an empty reference, no report in the folder, or a damaged one.
    """
    return _read_open_i(path) if path.is_dir() else _read_table(path)


def _read_table(path: Path) -> ReportSet:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_XML_BYTES))
    table = open_table(path)
    columns = set(table.columns)
    if "reference" not in columns or not columns & {"report", "picture"}:
        raise DatasetError(
            f"'{path}' has the columns {shown(table.columns)}; expected 'reference', and 'report' or "
            "'picture' (a PNG or JPEG beside the table)"
        )
    pairs = []
    for number, (line, fields) in enumerate(table.rows(), start=1):
        row = dict(zip(table.columns, fields, strict=True))
        if not row["reference"]:
            raise DatasetError(f"'{path}', line {line}: the reference is empty")
        if "report" in columns:
            pairs.append(ReportPair(number, row["reference"], row["report"], None))
            continue
        name = Path(row["picture"])
        if not row["picture"] or name.is_absolute() or ".." in name.parts:
            raise DatasetError(f"'{path}', line {line}: expected a picture beside the table")
        pairs.append(ReportPair(number, row["reference"], None, path.parent / name))
    return ReportSet("table", table.sha256, tuple(pairs))


def _read_open_i(folder: Path) -> ReportSet:
    """Findings and impression of every XML report that has a picture in the folder: its first."""
    files = sorted(folder.rglob("*.xml"))
    if not files:
        raise DatasetError(
            f"'{folder}' holds no report of Open-I (*.xml); give its folder, or a CSV of reports"
        )
    pictures = {path.stem: path for path in sorted(folder.rglob("*.png"))}
    digest, pairs = hashlib.sha256(), []
    without_text = without_picture = 0
    for number, file in enumerate(files, start=1):
        data, report = _parsed(file)
        digest.update(data)
        texts = (
            part.text or ""
            for part in report.iter("AbstractText")
            if part.get("Label") in ("FINDINGS", "IMPRESSION")
        )
        reference = "\n".join(text.strip() for text in texts if text.strip())
        names = [image.get("id", "") for image in report.iter("parentImage")]
        picture = next((pictures[name] for name in names if name in pictures), None)
        without_text += not reference
        without_picture += bool(reference) and picture is None
        if reference and picture is not None:
            pairs.append(ReportPair(number, reference, None, picture))
    notes = (
        f"{counted(without_text, 'report')} without findings and impression left out",
        f"{counted(without_picture, 'report')} without a picture in the folder left out",
    )
    if not pairs:
        raise DatasetError(
            f"none of the {len(files)} reports in '{folder}' has a picture there; unpack Open-I's PNG "
            "pictures beside them"
        )
    return ReportSet("open-i", digest.hexdigest(), tuple(pairs), notes)


def _parsed(file: Path) -> tuple[bytes, ElementTree.Element]:
    try:
        if file.stat().st_size > MAX_XML_BYTES:
            raise DatasetError(
                f"'{file}' is larger than {MAX_XML_BYTES:,} bytes; no report of Open-I"
            )
        data = file.read_bytes()
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise DatasetError(f"'{file}' declares entities; no report of Open-I does")
        return data, ElementTree.fromstring(data)
    except OSError as error:
        raise DatasetError(f"cannot read '{file}': {error.strerror or error}") from error
    except ElementTree.ParseError:
        raise DatasetError(f"'{file}' is not XML; take it from the dataset once more") from None
