"""The language packs: whole where it matters, in step with their sources, and shown as they should be."""

import gettext
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("babel", reason="language packs are made with Babel")

from babel.messages.mofile import write_mo
from babel.messages.plurals import get_plural

from edge_medgemma.runtime.clinic.worklist.records import Doubt
from edge_medgemma.runtime.reporting import words
from edge_medgemma.runtime.reporting.html_report import render_html
from edge_medgemma.runtime.reporting.options import RenderOptions, StudyContext
from edge_medgemma.runtime.reporting.translation import LANGUAGE_FOLDER, Translation, languages
from edge_medgemma.runtime.reporting.wording import headline
from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS, WARNINGS

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "docs"))
import languages as packs

FOREIGN = [tag for tag in languages() if tag != "en"]
PLACEHOLDER = re.compile(r"%\((\w+)\)[sd]|%%|%")


def test_the_languages_of_the_product_are_there() -> None:
    assert languages() == ("en", "ar", "es", "fr", "hi", "pt", "sw")
    assert [tag for tag in languages() if Translation(tag).is_right_to_left] == ["ar"]


@pytest.mark.parametrize("tag", languages())
def test_the_compiled_pack_is_that_of_its_source(tag) -> None:
    file = io.BytesIO()
    write_mo(file, packs.read_pack(tag))
    assert (LANGUAGE_FOLDER / tag / "edge_medgemma.mo").read_bytes() == file.getvalue()


@pytest.mark.parametrize("tag", FOREIGN)
def test_no_safety_sentence_is_missing_or_left_in_english(tag) -> None:
    translation = Translation(tag)
    assert [one for one in packs.safety_messages() if not translation.knows(one)] == []
    same = {"Pneumothorax", "critical", "possible", "urgent"}  # words of French too
    left = {one for one in packs.safety_messages() if translation.text(one) == one}
    assert left <= (same if tag == "fr" else set())


def test_safety_sentences_cover_what_a_report_can_say() -> None:
    known = set(packs.safety_messages())
    assert known >= {*BLOCKING_PROBLEMS.values(), *WARNINGS.values(), *words.HEADLINES.values()}
    assert set(words.DOUBTS) == {doubt.value for doubt in Doubt}
    assert known >= set(words.DOUBTS.values())


@pytest.mark.parametrize("tag", FOREIGN)
def test_placeholders_agree_with_the_english_message(tag) -> None:
    for message in filter(lambda one: one.id, packs.read_pack(tag)):
        ids = message.id if isinstance(message.id, tuple | list) else (message.id,)
        strings = message.string if isinstance(message.string, tuple | list) else (message.string,)
        expected = set(PLACEHOLDER.findall(ids[-1]))
        for place, form in enumerate(filter(None, strings)):
            found = set(PLACEHOLDER.findall(form))
            # "two studies" is one word in Arabic: the number may be left out where the form says it
            spoken = {"num"} if len(ids) > 1 and place < len(strings) - 1 else set()
            assert expected - spoken <= found <= expected, (tag, ids, form)


@pytest.mark.parametrize("tag", FOREIGN)
def test_plural_forms_are_those_of_the_language(tag) -> None:
    number, expression = get_plural(tag)
    pack = packs.read_pack(tag)
    assert pack.num_plurals == number
    for message in pack:
        if isinstance(message.id, tuple | list) and any(message.string):
            assert len(message.string) == number and all(message.string), message.id
    compiled = gettext.GNUTranslations((LANGUAGE_FOLDER / tag / "edge_medgemma.mo").open("rb"))
    assert compiled.info()["plural-forms"] == f"nplurals={number}; plural={expression};"


def test_arabic_has_a_form_for_two() -> None:
    message = (
        "Queue of %(num)d study, most urgent first",
        "Queue of %(num)d studies, most urgent first",
    )
    forms = {number: Translation("ar").plural(*message, number) for number in (1, 2, 3, 11, 100)}
    assert len(set(forms.values())) == 5 and "دراستين" in forms[2] and "11" in forms[11]


def test_no_pack_is_called_reviewed_before_a_clinician_is_named() -> None:
    for tag in FOREIGN:
        assert bool(packs.read_pack(tag).reviewer) is Translation(tag).is_reviewed


def test_an_update_keeps_the_reviewer_and_drops_words_that_are_gone(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(packs, "LANGUAGE_FOLDER", tmp_path)
    source = LANGUAGE_FOLDER / "fr" / "edge_medgemma.po"
    text = source.read_text(encoding="utf-8").replace(
        "X-Reviewed-By: ", "X-Reviewed-By: Dr Example"
    )
    (tmp_path / "fr").mkdir()
    (tmp_path / "fr" / source.name).write_text(text + '\nmsgid "gone"\nmsgstr "parti"\n', "utf-8")
    monkeypatch.setattr(packs, "LANGUAGES", ("fr",))
    packs.main()
    with (tmp_path / "fr" / "edge_medgemma.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    assert compiled.info()["x-reviewed-by"] == "Dr Example"
    assert compiled.gettext("gone") == "gone" and compiled.gettext("Study") == "Étude"


class Text(HTMLParser):
    """Text of a page with the language that is in force, style left out."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.languages: list[tuple[str, str]] = []
        self.parts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            before = self.languages[-1][1] if self.languages else ""
            now = dict(attrs).get("lang", before)
            self.languages.append((tag, "figure" if tag == "bdi" and now != "en" else now))

    def handle_endtag(self, tag):
        self.languages.pop()

    def handle_data(self, data):
        if self.languages and self.languages[-1][0] != "style":
            self.parts.append((self.languages[-1][1], data))


@pytest.mark.parametrize("tag", FOREIGN)
def test_what_stays_english_is_marked_and_digits_stay_western(report, tag) -> None:
    contexts = {one.study_uid: StudyContext("A-1", tuple(words.DOUBTS)) for one in report.studies}
    page = render_html(report, RenderOptions(tag, contexts))
    parts = Text(page).parts
    told = " ".join(text for language, text in parts if language == tag)
    if tag in (
        "ar",
        "hi",
    ):  # scripts of their own: any Latin word would be English that is not marked
        allowed = {"R", "L", "CT", "MR"}
        assert set(re.findall(r"[A-Za-z]+", told)) <= allowed
    assert not re.search(r"[٠-٩۰-۹०-९]", page)
    assert f'<html lang="{tag}" dir="{"rtl" if tag == "ar" else "ltr"}">' in page


def figures_alone(text: str) -> bool:
    return not re.search(r"\d", text)


def test_every_number_of_an_arabic_page_has_its_own_direction(report) -> None:
    page = render_html(report, RenderOptions("ar", {}))
    stray = [
        text.strip()
        for language, text in Text(page).parts
        if language == "ar" and not figures_alone(text)
    ]
    counted = ("من 5", "4 دراسات")  # whole numbers within a phrase, which no direction can tear
    assert [
        text for text in stray if not re.fullmatch(r"\D*\d+\D*", text) and text not in counted
    ] == []


@pytest.mark.parametrize("tag", FOREIGN)
def test_an_unreviewed_page_says_so_and_repeats_the_urgency_in_english(
    report, tag, monkeypatch
) -> None:
    flagged = next(study for study in report.studies if study.flagged)
    one = replace(report, studies=(flagged,))
    page = render_html(one, RenderOptions(tag))
    note = Translation(tag).text(words.UNREVIEWED)
    english = f'<bdi lang="en" dir="ltr">{headline(flagged)}. Possible: {flagged.flagged[0].title}'
    assert note in page.replace("&#39;", "'") and english in page
    assert page.index(english) > page.index('class="band')
    monkeypatch.setattr(Translation, "is_reviewed", True)
    assert english not in render_html(one, RenderOptions(tag))
