"""`report.html`: one file a human checks in half a minute; no network, no scripts, a study an A4 page."""

import base64
import io
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

import jinja2
from PIL import Image

from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.reporting import engineer_words, words
from edge_medgemma.runtime.reporting.json_report import INTENDED_USE
from edge_medgemma.runtime.reporting.options import DEFAULT_OPTIONS, RenderOptions, StudyContext
from edge_medgemma.runtime.reporting.translation import Translation
from edge_medgemma.runtime.reporting.wording import (
    Wording,
    english_line,
    figures,
    probability_words,
)
from edge_medgemma.runtime.triage.report import (
    FindingResult,
    FindingStatus,
    KeyImage,
    StudyReport,
    TriageReport,
)

TEMPLATE_NAME = "report.html"

_ROW_MM = 186.0
_GAP_MM = 3.0
_TALLEST_MM = 52.0
_TALLEST_DENSE_MM = 27.0
"""Width of a sheet on paper, the gap between two key images, and the most that one is high."""

_MOST_PRINTED = 6
"""Key images on paper; a report that keeps those of an earlier look too shows the rest on screen."""

_DENSE = 13
"""Findings, limitations, doubts and key images from which on a sheet is set smaller."""


def write_html_report(
    report: TriageReport, path: Path, options: RenderOptions = DEFAULT_OPTIONS
) -> None:
    """Write the report; readers see the old file or the whole new one.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    write_atomically(path, render_html(report, options).encode())


def render_html(report: TriageReport, options: RenderOptions = DEFAULT_OPTIONS) -> str:
    """The report as one HTML document; everything in it is escaped.

    Raises:
        ValueError: there is no such language.
    """
    translation = Translation(options.language)
    template = _environment(options.language).get_template(TEMPLATE_NAME)
    return template.render(
        report=report,
        options=options,
        translation=translation,
        wording=Wording(translation, options.time_zone),
        words=words,
        intended_use=INTENDED_USE,
    )


@cache
def _environment(language: str) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    translation = Translation(language)
    environment.install_gettext_callables(  # type: ignore[attr-defined]
        translation.text, translation.form, newstyle=True
    )
    environment.filters.update(
        engineer_words.FILTERS,
        by_status=_flagged_first,
        is_dense=is_dense,
        english_line=english_line,
        figures=figures,
        png=png_data_uri,
        printed_images=printed_images,
        probability_words=probability_words,
        size_mm=size_mm,
    )
    return environment


def png_data_uri(picture: KeyImage) -> str:
    """The picture as a `data:` address of a PNG, which carries no metadata."""
    file = io.BytesIO()
    Image.fromarray(picture.pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def is_dense(study: StudyReport, context: StudyContext) -> bool:
    """Whether the sheet must be set smaller to fit one page."""
    told = (study.findings, study.limitations, study.flagged, context.doubts, context.earlier_flags)
    return sum(map(len, told)) + len(study.key_images) // 2 >= _DENSE


def size_mm(picture: KeyImage, study: StudyReport, dense: bool) -> Mapping[str, str]:
    """Width and height on paper: the frame has the shape of the picture, so that no bars are left."""
    number = min(max(len(study.key_images), 3), _MOST_PRINTED)
    most_width_mm = (_ROW_MM - _GAP_MM * (number - 1)) / number
    rows, columns = picture.pixels.shape
    tallest_mm = _TALLEST_DENSE_MM if dense else _TALLEST_MM
    scale = min(most_width_mm / columns, tallest_mm / rows)
    return {"width": f"{columns * scale:.1f}mm", "height": f"{rows * scale:.1f}mm"}


def printed_images(study: StudyReport) -> Collection[int]:
    """Slices whose key images stand on paper: one of each flagged finding before any second one."""
    chosen: dict[int, None] = {}
    for finding in study.flagged:
        of = [one.slice_index for one in study.key_images if finding.title in one.findings]
        chosen.update(dict.fromkeys(of[:1]))
    by_findings = sorted(study.key_images, key=lambda one: not one.findings)
    chosen.update(dict.fromkeys(one.slice_index for one in by_findings))
    return tuple(chosen)[:_MOST_PRINTED]


def _flagged_first(study: StudyReport) -> tuple[FindingResult, ...]:
    others = (one for one in study.findings if one.status is not FindingStatus.FLAGGED)
    return (*study.flagged, *others)
