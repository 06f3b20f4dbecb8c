"""Open-I, the chest radiographs of Indiana University: one XML report an examination.

Read are the headings that two coders gave each report (`MeSH/major`, such as
`Pleural Effusion/right/small`), not its sentences. Demner-Fushman et al., JAMIA 2016;23:304-310.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

from edge_medgemma.calibration.evaluation.datasets.collect import RowCollector, counted
from edge_medgemma.calibration.evaluation.datasets.columns import unread_note
from edge_medgemma.calibration.evaluation.datasets.csv_table import shown
from edge_medgemma.calibration.evaluation.datasets.layout import DatasetLayout, LabelRequest
from edge_medgemma.calibration.evaluation.records import Labels
from edge_medgemma.runtime.errors import LabelError

FINDINGS: Mapping[str, tuple[str, ...]] = {
    "Pneumothorax": ("pneumothorax",),
    "Hydropneumothorax": ("pneumothorax", "pleural_effusion"),
    "Pneumoperitoneum": ("free_gas",),
    "Pleural Effusion": ("pleural_effusion",),
    "Consolidation": ("consolidation",),
    "Pulmonary Edema": ("pulmonary_oedema",),
    "Cardiomegaly": ("cardiomegaly",),
    "Nodule": ("lung_nodule_or_mass",),
    "Mass": ("lung_nodule_or_mass",),
}
"""First word of a heading -> findings."""

IN_LUNG = ("Nodule", "Mass")
"""Headings that count only where the next word is the lung."""

UNCLEAR: Mapping[str, str] = {
    "Airspace Disease": "consolidation",
    "Infiltrate": "consolidation",
    "Opacity": "consolidation",
    "Pneumonia": "consolidation",
    "Pulmonary Congestion": "pulmonary_oedema",
}
"""Heading that may mean a finding -> that finding, not read where no other heading says it is there."""

BORDERLINE = "borderline"
"""A qualifier under which a heading counts as not read."""

NORMAL, NOT_INDEXED = "normal", "No Indexing"

MAX_REPORT_BYTES = 1_000_000

_NAME = re.compile(r"(CXR\d+)(?:_.*)?")


def name_of(name: str) -> str:
    """`CXR1` of a picture's name, `CXR1_1_IM-0001-3001.png`."""
    found = _NAME.fullmatch(name.rpartition("/")[2])
    return found[1] if found else name


def read_labels(request: LabelRequest) -> Labels:
    """One row a report.

    Raises:
        LabelError: no report in the folder, or a damaged one.
    """
    paths = _reports(request.path)
    collector = RowCollector()
    digest = hashlib.sha256()
    unread: Counter[str] = Counter()
    others: Counter[str] = Counter()
    not_indexed = without_pictures = 0
    codes = tuple(dict.fromkeys(code for found in FINDINGS.values() for code in found))
    for path in paths:
        data, report = _parsed(path)
        digest.update(data)
        headings = [heading.text or "" for heading in report.iter("major")]
        identifier = report.find(".//uId")
        key = "" if identifier is None else identifier.get("id", "")
        if not key:
            raise LabelError(f"'{path}' has no uId; expected a report of Open-I")
        findings = findings_of(headings)
        not_indexed += NOT_INDEXED in headings or not headings
        without_pictures += report.find(".//parentImage") is None
        if NOT_INDEXED not in headings:
            unread.update(code for code, value in findings.items() if value is None)
        others.update({_words(h)[0] for h in headings} - {*FINDINGS, *UNCLEAR, NORMAL, NOT_INDEXED})
        collector.add(key, findings)
    notes = [
        "read are the coders' headings of each report; what none of them names is absent",
        *unread_note(unread, "a heading may mean it or calls it borderline"),
        *_counts(not_indexed, without_pictures, others),
        *collector.notes(),
    ]
    return Labels("open-i", collector.rows(), codes, digest.hexdigest(), tuple(notes))


def _counts(not_indexed: int, without_pictures: int, others: Counter[str]) -> list[str]:
    """Sentences on reports and headings that say nothing here, where there are any."""
    notes = []
    if not_indexed:
        notes.append(f"{counted(not_indexed, 'report')} without headings, taken as not read")
    if without_pictures:
        notes.append(f"{counted(without_pictures, 'report')} without a picture")
    if others:
        often = shown(name for name, _ in others.most_common(10))
        notes.append(
            f"{counted(len(others), 'heading')} without a finding of ours, most often {often}"
        )
    return notes


def findings_of(headings: Iterable[str]) -> dict[str, bool | None]:
    """What the headings of one report say of each finding."""
    split = [_words(heading) for heading in headings]
    if not split or [NOT_INDEXED] in split:
        return {code: None for found in FINDINGS.values() for code in found}
    result: dict[str, bool | None] = {code: False for found in FINDINGS.values() for code in found}
    present: set[str] = set()
    for first, *rest in split:
        if first in UNCLEAR:
            result[UNCLEAR[first]] = None
        if first not in FINDINGS or (first in IN_LUNG and rest[:1] != ["lung"]):
            continue
        if BORDERLINE in rest:
            result.update(dict.fromkeys(FINDINGS[first]))
        else:
            present.update(FINDINGS[first])
    return {**result, **dict.fromkeys(present, True)}


def _words(heading: str) -> list[str]:
    return heading.strip().split("/")


def _reports(path: Path) -> list[Path]:
    """XML files of the folder, or of the only folder below it that has some."""
    found = [path] if path.is_file() else sorted(path.glob("*.xml"))
    found = found or sorted(path.glob("*/*.xml"))
    if not found:
        raise LabelError(f"'{path}' holds no XML report; name the folder of reports (--labels)")
    return found


def _parsed(path: Path) -> tuple[bytes, ElementTree.Element]:
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise LabelError(f"'{path}' is larger than {MAX_REPORT_BYTES} bytes; no report is")
        data = path.read_bytes()
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise LabelError(f"'{path}' defines entities; no report of Open-I does")
        return data, ElementTree.fromstring(data)
    except OSError as error:
        raise LabelError(f"cannot read '{path}': {error.strerror or error}") from error
    except ElementTree.ParseError as error:
        raise LabelError(f"'{path}' is no XML: {error}; download it again") from error


LAYOUT = DatasetLayout(
    "open-i",
    read_labels,
    protocol="chest_xray",
    has_pictures=True,
    name_of=name_of,
    study_of=name_of,
)
