"""The page of an evaluation: whole, escaped, self-contained, and no share without its counts."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from support.sample_evaluation import sample_evaluation

from edge_medgemma.calibration.evaluation.document import EvaluationDocument, Picture
from edge_medgemma.calibration.evaluation.page import PAGE_NAME, render_page, write_page
from edge_medgemma.calibration.evaluation.page_labels import count, percent

PICTURES = (
    Picture("pictures/a.jpg", 3, 15.0, "brain window", "R", "L"),
    Picture("pictures/absent.jpg", 4, None, "bone window", "", ""),
    Picture("../outside.jpg", 5, None, "bone window", "", ""),
)
VOID = {"meta", "br", "img", "line", "rect", "circle", "polyline"}


@pytest.fixture(scope="module")
def document() -> EvaluationDocument:
    return sample_evaluation(120, PICTURES, is_compared=True)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "evaluation"
    (path / "pictures").mkdir(parents=True)
    for file in (path / "pictures" / "a.jpg", tmp_path / "outside.jpg"):
        Image.new("L", (8, 8), 90).save(file)
    return path


class Nesting(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_sections_stand_in_the_order_of_a_review(document, folder) -> None:
    write_page(document, folder)
    page = (folder / PAGE_NAME).read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "Demanded", "Flow of studies", "Findings", "Intracranial haemorrhage",
        "Mass effect or midline shift", "Skull fracture", "Time to notification", "Subgroups",
        "Worst misses", "Worst false flags", "In pairs with fake-engine", "Provenance",
    ]  # fmt: skip
    parser = Nesting()
    parser.feed(page)
    assert parser.open == []
    assert "NOT MET" in page and "Flip(" not in page and "None" not in page


def test_it_needs_no_network_and_no_script_and_everything_is_escaped(document, folder) -> None:
    page = render_page(document, folder)
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page
    assert set(re.findall(r'src="(.{10})', page)) == {"data:image"}
    assert "<b>scan901" not in page and "&lt;b&gt;scan901" in page


def test_a_picture_that_is_missing_or_outside_the_folder_is_said_to_be(document, folder) -> None:
    wrong = (*document.worst_misses, *document.worst_false_flags)
    page = render_page(document, folder)
    assert page.count("data:image/jpeg") == len(wrong) > 0
    assert page.count("picture not kept") == 2 * len(wrong)


def test_every_percentage_stands_beside_its_counts(document, folder) -> None:
    page = render_page(document, folder)
    rates = re.findall(r"<span>(.*?)</span></td>", page)
    with_share = [one for one in rates if "<b>" in one]
    assert len(with_share) >= 4 * len(document.findings)
    assert all(re.match(r"\d+ of \d+<br>", one) for one in with_share)
    for finding in document.findings:
        primary, secondary = finding.primary.sensitivity, finding.secondary.sensitivity
        for one in (primary, secondary):
            assert f"{one.successes} of {one.trials}" in page
        flagged = (
            f"<td>{finding.secondary.true_positives}</td><td>{finding.secondary.false_positives}"
        )
        assert flagged in page


def test_a_small_subgroup_shows_counts_alone(document, folder) -> None:
    small = [
        group
        for finding in document.findings
        for group in finding.subgroups
        if group.sensitivity.trials and group.sensitivity.rate is None
    ]
    assert small
    page = render_page(document, folder)
    for group in small:
        words = f"{group.sensitivity.successes} of {group.sensitivity.trials}</span></td>"
        assert words in page


def test_it_says_that_the_interval_of_a_perfect_area_is_exact(document, folder) -> None:
    assert "exact where the log-odds separate the classes" in render_page(document, folder)


def test_an_evaluation_of_nothing_still_has_a_page(document, folder) -> None:
    empty = replace(document, findings=(), worst_misses=(), worst_false_flags=(), comparison=None,
                    requirements=())  # fmt: skip
    page = render_page(empty, folder)
    assert "No finding was missed." in page and "In pairs" not in page and "Demanded" not in page


def test_random_weights_are_said_to_mean_nothing(document, folder) -> None:
    engine = replace(document.provenance.engine, has_random_weights=True)
    random = replace(document, provenance=replace(document.provenance, engine=engine))
    assert "no figure on this page means anything" in render_page(random, folder)


def test_rounding_never_makes_all_or_none() -> None:
    assert [percent(x) for x in (0, 0.0001, 0.5, 0.9999, 1)] == [
        "0.0 %", "< 0.1 %", "50.0 %", "> 99.9 %", "100.0 %",
    ]  # fmt: skip
    assert (count(1, "miss"), count(2, "miss"), count(0, "scan")) == (
        "1 miss",
        "2 misses",
        "0 scans",
    )
