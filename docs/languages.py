"""Bring every language pack up to date with the words of the program: `make languages`.

Words that are gone are dropped, new ones wait untranslated (they are shown in English), and each
`.po` is compiled to the `.mo` that the program reads. Babel is needed here alone.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.reporting import words
from edge_medgemma.runtime.reporting.json_report import INTENDED_USE
from edge_medgemma.runtime.reporting.translation import DOMAIN, LANGUAGE_FOLDER
from edge_medgemma.runtime.triage.pipeline import UNLIKE_CALIBRATION
from edge_medgemma.runtime.triage.protocol import builtin_protocols
from edge_medgemma.runtime.triage.scoring.findings import NOT_IN_SCOPE, NOT_SCORED
from edge_medgemma.runtime.triage.scoring.grounds import FLAG_OUTSIDE_DOMAIN, RANDOM_WEIGHTS
from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS, WARNINGS

ROOT = Path(__file__).resolve().parents[1]

LANGUAGES = ("en", "fr", "es", "pt", "sw", "hi", "ar")

FOLDERS = ("runtime/reporting", "runtime/clinic")

METHODS = [("labels.py", "ignore"), ("**.py", "python"), ("**.html", "jinja2")]

KEYWORDS: dict[str, tuple[int, ...] | None] = {
    "_": None,
    "_filled": None,
    "form": (1, 2),
    "gettext": None,
    "mark": None,
    "ngettext": (1, 2),
    "phrase": None,
    "plural": (1, 2),
    "said": None,
    "text": None,
}
"""Functions whose literal arguments are shown to people."""

Message = str | tuple[str, str]


def safety_messages() -> list[str]:
    """What no language may lack: urgency, what it rests on, what stands in its way, and finding titles."""
    demo = load_manifest(ROOT / "runtime" / "engines" / "demo").scope
    assert demo is not None
    protocols = builtin_protocols()
    return list(
        dict.fromkeys(
            [
                *words.HEADLINES.values(),
                words.ROUTINE_FLAGGED_HEADLINE,
                *words.URGENCY_WORDS.values(),
                words.NO_FLAG_WORDS,
                *words.ACTIONS.values(),
                words.NO_RESULT_ACTION,
                INTENDED_USE,
                demo.notice,
                RANDOM_WEIGHTS.detail,
                words.UNREVIEWED,
                words.INCOMPLETE,
                words.EARLIER_FLAG,
                *words.DOUBTS.values(),
                *words.STATUS_WORDS.values(),
                *BLOCKING_PROBLEMS.values(),
                *WARNINGS.values(),
                NOT_IN_SCOPE,
                NOT_SCORED,
                UNLIKE_CALIBRATION,
                FLAG_OUTSIDE_DOMAIN,
                *words.REASONS_WITH_FIGURES,
                *words.REASONS,
                *(one.title for one in protocols),
                *(finding.title for one in protocols for finding in one.findings),
            ]
        )
    )


def messages() -> list[Message]:
    """Every message that is shown to people; a pair has a plural."""
    return list(dict.fromkeys([*safety_messages(), *_extracted()]))


def _extracted() -> Iterator[Message]:
    options = {"**.html": {"trimmed": "false", "silent": "false"}}
    for folder in FOLDERS:
        found = extract_from_dir(ROOT / folder, METHODS, options, KEYWORDS)
        for _, _, message, _, _ in sorted(found, key=lambda one: (one[0], one[1])):
            yield message


def read_pack(tag: str) -> Catalog:
    """The pack of a language as it lies on the disk; an empty one where there is none."""
    path = _po(tag)
    if not path.exists():
        return _Pack(tag, "")
    text = path.read_text(encoding="utf-8")
    reviewer = re.search(r'^"X-Reviewed-By: ?(.*?)(?:\\n)?"$', text, re.MULTILINE)
    with path.open("rb") as file:
        old = read_po(file, locale=tag)
    pack = _Pack(tag, reviewer[1] if reviewer else "")
    for message in old:
        if message.id:  # a plural that lacks a form is shown in English as a whole
            forms = message.string if isinstance(message.string, tuple) else (message.string,)
            pack.add(message.id, message.string if all(forms) else "")
    return pack


def updated(tag: str) -> Catalog:
    """The pack of a language with all messages of the program and no others."""
    old = read_pack(tag)
    pack = _Pack(tag, old.reviewer)  # type: ignore[attr-defined]
    for message in messages():
        known = old.get(message[0] if isinstance(message, tuple) else message)
        pack.add(message, known.string if known else "")
    return pack


class _Pack(Catalog):
    """A catalogue with the same header whenever it is made, and the name of its reviewer."""

    def __init__(self, tag: str, reviewer: str) -> None:
        made = datetime(2026, 11, 28, tzinfo=UTC)
        super().__init__(
            locale=tag,
            domain=DOMAIN,
            project="edge-medgemma",
            version="1",
            header_comment="# What reports and pages say. X-Reviewed-By: the clinician who read it all.",
            creation_date=made,
            revision_date=made,
            fuzzy=False,
        )
        self.reviewer = reviewer

    @property
    def mime_headers(self) -> list[tuple[str, str]]:  # type: ignore[override]
        """Headers of the file."""
        changing = (
            "Report-Msgid-Bugs-To",
            "POT-Creation-Date",
            "PO-Revision-Date",
            "Last-Translator",
            "Language-Team",
        )
        made = ("Generated-By", *changing)
        headers = [one for one in super().mime_headers if one[0] not in made]
        return [*headers, ("X-Reviewed-By", self.reviewer)]


def _po(tag: str) -> Path:
    return LANGUAGE_FOLDER / tag / f"{DOMAIN}.po"


def main() -> None:
    """Update and compile every pack, and say what waits for a translation."""
    for tag in LANGUAGES:
        pack = updated(tag)
        path = _po(tag)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write_po(file, pack, width=100, sort_output=True)
        with path.with_suffix(".mo").open("wb") as file:
            write_mo(file, pack)
        waiting = sum(not (one.string and all(one.string)) for one in pack if one.id)
        if tag != "en":
            print(f"{tag}: {waiting} of {len(pack)} messages wait for a translation")


if __name__ == "__main__":
    main()
