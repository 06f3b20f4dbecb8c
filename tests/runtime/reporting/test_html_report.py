import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from edge_medgemma.runtime.reporting.html_report import render_html, write_html_report
from edge_medgemma.runtime.reporting.options import StudyContext
from edge_medgemma.runtime.reporting.translation import Translation
from edge_medgemma.runtime.reporting.wording import Wording, probability_words
from edge_medgemma.runtime.slicing.volume import Problem
from edge_medgemma.runtime.triage.report import FindingStatus
from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS, NO_FLAG_TEXT, Urgency

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.tags: set[str] = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def test_the_page_needs_no_network_and_no_script(report) -> None:
    page = Reader(render_html(report))
    assert not page.tags & {"script", "link", "iframe", "object", "form", "base"}
    links = [value for name, value in page.attributes if name == "href"]
    assert links and all(value.startswith("#") for value in links)
    sources = [value for name, value in page.attributes if name in ("src", "srcset")]
    assert sources and all(value.startswith("data:image/png;base64,") for value in sources)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    text = render_html(report)
    assert "url(" not in text and "@import" not in text
    assert re.findall(r"https?:", text) == []


def test_everything_a_human_must_see_is_there(report) -> None:
    text = " ".join(Reader(render_html(report)).text.split())
    assert "Aid to prioritisation, not a diagnosis. It does not remove cases from the queue" in text
    assert "For demonstration <only>." in text
    assert NO_FLAG_TEXT in text.lower()
    for field in ("Finding", "Time identified", "Communicated by", "Received by",
                  "Time received", "Method"):  # fmt: skip
        assert field in text
    assert "not assessed" in text and "was not made for it" in text
    assert report.engine.sha256 in text
    assert "preset medgemma-ct" in text
    for study in report.studies:
        assert study.name in text and study.study_uid in text
        for finding in study.findings:
            assert finding.title in text
    assert text.count("1 × ") >= 1


def test_pictures_are_plain_png_with_sides_marked(report) -> None:
    page = render_html(report)
    assert page.count('<b class="left">R</b><b class="right">L</b>') == page.count("<figure ")
    for encoded in re.findall(r"data:image/png;base64,([^\"]+)", page):
        image = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert image.format == "PNG" and image.mode == "L" and not image.info
    counts = [section.count("<figure ") for section in page.split("<section")[2:]]
    assert all(3 <= n <= 6 for n in counts if n)
    assert sum(n > 0 for n in counts) == 4


def test_no_study_is_ever_shown_in_green(report) -> None:
    page = render_html(report)
    for red, green, blue in re.findall(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})\b", page):
        assert int(green, 16) <= max(int(red, 16), int(blue, 16)) + 8
    assert "green" not in page


def test_text_is_escaped(report) -> None:
    study = replace(report.studies[0], problems=(Problem("x", "<script>alert(1)</script>"),))
    page = render_html(replace(report, studies=(study,)))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize("urgency", list(Urgency))
def test_one_study_has_one_sheet_with_its_band(report, urgency) -> None:
    study = replace(report.studies[0], urgency=urgency)
    page = render_html(replace(report, studies=(study,)))
    assert page.count("<section") == 1
    assert f'<div class="band {urgency}">' in page


def test_a_percentage_stands_only_where_there_is_one(report) -> None:
    finding = report.studies[0].findings[0]
    fitted = replace(finding, probability=0.973, fitted_on=(20, 64))
    assert probability_words(fitted) == "97 %, n = 84"
    assert probability_words(replace(fitted, probability=None, score=-1.234)) == ""


@pytest.mark.parametrize("fitted_on", [(19, 500), (500, 19), None])
def test_no_percentage_stands_where_it_was_fitted_on_few(report, fitted_on) -> None:
    study = report.studies[0]
    findings = tuple(replace(f, probability=0.97, fitted_on=fitted_on) for f in study.findings)
    page = render_html(replace(report, studies=(replace(study, findings=findings),)))
    assert "97 %" not in page and ">Probability<" not in page
    fitted = tuple(replace(f, fitted_on=(20, 20)) for f in findings)
    page = render_html(replace(report, studies=(replace(study, findings=fitted),)))
    assert "97 %, n = 40" in page and ">Probability<" in page


def test_the_page_is_written(report, tmp_path) -> None:
    write_html_report(report, tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").stat().st_size < 500_000


def test_every_class_is_styled(report) -> None:
    """A class that the style sheet does not know lays the page out wrong without an error."""
    page = render_html(report)
    style, body = page.split("</style>")
    used = {name for names in re.findall(r'class="([^"]*)"', body) for name in names.split()}
    known = set(re.findall(r"\.([a-z_]+)", style))
    assert used - known <= {"name"} | {status.value for status in FindingStatus}


def test_a_flag_without_urgency_is_not_called_no_flag(report) -> None:
    flagged = next(study for study in report.studies if study.flagged)
    finding = replace(flagged.flagged[0], urgency=Urgency.ROUTINE)
    study = replace(flagged, urgency=Urgency.ROUTINE, findings=(finding,))
    page = render_html(replace(report, studies=(study,)))
    assert "Routine: a finding without urgency was flagged" in page
    assert "Triage report: routine" in page
    assert NO_FLAG_TEXT not in Reader(page).text.lower()


def test_a_reason_with_figures_is_translated_and_its_figures_keep_their_direction() -> None:
    arabic, english = Wording(Translation("ar")), Wording(Translation("en"))
    for reason in (
        "flagged when 5 or 9 slices were shown, not when 17 were",
        "flagged at an earlier look at 12 slices, not at the latest at 24",
    ):
        assert english.phrase(reason) == reason
        said = arabic.phrase(reason)
        assert "flagged" not in said and said.count('<bdi dir="ltr">') == 2
    unknown = "flagged at 3 slices by <b>somebody</b>"
    assert arabic.phrase(unknown).startswith('<bdi lang="en" dir="ltr">flagged at 3')
    assert "<b>" not in arabic.phrase(unknown)


def test_a_doubt_is_said_once_whether_worklist_or_report_knows_it(report) -> None:
    context = StudyContext(doubts=("aborted", "conflicting_copies"))
    study = report.studies[0]
    wording = Wording(Translation("en"))
    assert "may be incomplete" in wording.doubts(context, study)
    assert "came twice" in wording.doubts(context, study)
    limits = tuple(BLOCKING_PROBLEMS[name] for name in ("may_be_incomplete", "conflicting_copies"))
    told = wording.doubts(context, replace(study, limitations=limits))
    assert told == "The transfer of the images broke off."
