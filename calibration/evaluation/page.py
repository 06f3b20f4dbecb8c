"""`evaluation.html`: what an evaluation found, for a reviewer; one file, no scripts, prints on A4.

Made from the document and the kept pictures alone, so that it can be made again at any time.
"""

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from edge_medgemma.calibration.evaluation.document import (
    EvaluationDocument,
    FindingEntry,
    Flow,
    Picture,
)
from edge_medgemma.calibration.evaluation.page_labels import FILTERS, count
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.reporting.charts import Axis, Figure, Series, line_chart

PAGE_NAME = "evaluation.html"
TEMPLATE_NAME = "evaluation.html"

MAX_NAMES = 12
"""Of left-over labels and studies that the page names; evaluation.json has them all."""

_DIAGONAL = ((0.0, 0.0), (1.0, 1.0))
_CURVE, _POINT, _CHANCE = 0, 1, 5
"""Numbers of the colours."""


def write_page(document: EvaluationDocument, folder: Path) -> None:
    """Write the page into the folder of an evaluation; readers see the old one or the whole new one.

    Args:
        document: all that it shows.
        folder: of evaluation.json, with the pictures.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    write_atomically(folder / PAGE_NAME, render_page(document, folder).encode())


def render_page(document: EvaluationDocument, folder: Path) -> str:
    """The page as one HTML document; everything in it is escaped."""
    wrong = (*document.worst_misses, *document.worst_false_flags)
    shown = [picture for answer in wrong for picture in answer.pictures]
    findings = document.findings
    return _template().render(
        document=document,
        pictures={one.file: _data_uri(one, folder) for one in shown},
        figures={one.code: _figures(one) for one in findings},
        leftovers=_leftovers(document.flow),
        misses=sum(one.primary.false_negatives for one in findings),
        false_flags=sum(one.secondary.false_positives for one in findings),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template(TEMPLATE_NAME)


def _data_uri(picture: Picture, folder: Path) -> str:
    """The picture as a `data:` address; empty where it is not in the folder."""
    path = folder / picture.file
    if not path.resolve().is_relative_to(folder.resolve()):
        return ""
    try:
        data = path.read_bytes()
    except OSError:
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def _figures(finding: FindingEntry) -> tuple[Figure, ...]:
    figures = [_roc(finding), _reliability(finding)]
    return tuple(one for one in figures if one is not None)


def _roc(finding: FindingEntry) -> Figure | None:
    if not finding.roc:
        return None
    curve = tuple((one.false_positive_rate, one.sensitivity) for one in finding.roc)
    series = [
        Series("chance", _DIAGONAL, _CHANCE, is_dashed=True, has_points=False),
        Series("log-odds of these scans", curve, _CURVE, has_points=False),
    ]
    point = finding.operating_point
    if point is not None:
        own = ((point.false_positive_rate, point.sensitivity),)
        series.append(Series("as the engine flags", own, _POINT))
    area = finding.area
    return Figure(
        "ROC curve.",
        _svg(series, Axis("false positive rate", end=1.0), Axis("sensitivity", end=1.0)),
        tuple((one.name, one.style) for one in series),
        f"{area.positives} with, {area.negatives} without the finding, {count(area.patients, 'patient')}; "
        "scans that have log-odds.",
    )


def _reliability(finding: FindingEntry) -> Figure | None:
    found = finding.reliability
    if found is None:
        return None
    points = tuple(
        (one.mean_probability, one.observed.rate)
        for one in found.bins
        if one.observed.rate is not None
    )
    intervals = [
        Series(
            "95 % interval",
            ((one.mean_probability, one.observed.low), (one.mean_probability, one.observed.high)),
            _CURVE,
            has_points=False,
        )
        for one in found.bins
        if one.observed.low is not None and one.observed.high is not None
    ]
    chance = Series("as stated", _DIAGONAL, _CHANCE, is_dashed=True, has_points=False)
    observed = Series("observed, with 95 % interval", points, _CURVE, has_line=False)
    fit = ""
    if found.slope is not None and found.intercept is not None:
        fit = f", slope {found.slope:.2f}, intercept {found.intercept:+.2f}"
    return Figure(
        "Reliability of the percentages.",
        _svg(
            [chance, *intervals, observed],
            Axis("stated probability", end=1.0),
            Axis("share with the finding", end=1.0),
        ),
        ((observed.name, _CURVE), (chance.name, _CHANCE)),
        f"{count(found.scans, 'scan')}, {found.positives} with the finding, in "
        f"{count(len(found.bins), 'bin')} of equal size. Expected calibration error "
        f"{found.expected_calibration_error:.3f}, Brier score {found.brier_score:.3f}{fit}.",
    )


def _svg(series: list[Series], x: Axis, y: Axis) -> Markup:
    """Drawn here from numbers and names of this module: markup, not text of a document."""
    return Markup(line_chart(series, x, y))


def _leftovers(flow: Flow) -> tuple[str, ...]:
    """What was left over on either side, counted and named, and the notes."""
    lists: Mapping[str, tuple[str, ...]] = {
        "row of labels without a study": flow.labels_without_study,
        "study without a label": flow.studies_without_label,
        "row of labels that fits several studies, and is taken for none": flow.labels_of_several_studies,
        "study that several rows fit, none of which is taken": flow.studies_of_several_labels,
        "labelled finding that no protocol asks for": flow.findings_not_asked,
    }
    found = [_listed(name, items) for name, items in lists.items() if items]
    if flow.files_skipped:
        reasons = "; ".join(f"{number} × {reason}" for reason, number in flow.files_skipped.items())
        found.append(f"{count(sum(flow.files_skipped.values()), 'file')} skipped: {reasons}")
    return (*found, *flow.notes)


def _listed(name: str, items: tuple[str, ...]) -> str:
    words = ", ".join(items[:MAX_NAMES])
    more = len(items) - MAX_NAMES
    return f"{len(items)} × {name}: {words}" + (f" and {more} more" if more > 0 else "")
