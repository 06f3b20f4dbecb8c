"""Lines of the worklist, and the head of a study's page, ready to be shown."""

from dataclasses import dataclass

from edge_medgemma.runtime.clinic.page.board import Board, main_study
from edge_medgemma.runtime.clinic.page.identity import Identity, read_identity
from edge_medgemma.runtime.clinic.page.words import (
    FAILURE_WORDS,
    NO_FLAG_NOTE,
    NO_RESULT_NOTE,
    NO_RESULT_WORDS,
    NOT_YET_WORDS,
    SENDER_WORDS,
    may_be_incomplete,
)
from edge_medgemma.runtime.clinic.settings import Site
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import StudyRow, StudyState
from edge_medgemma.runtime.reporting.words import ACTIONS, NO_FLAG_WORDS, URGENCY_WORDS
from edge_medgemma.runtime.triage.report import TriageReport
from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS, WARNINGS, Urgency


@dataclass(frozen=True, slots=True)
class Entry:
    """One study as a person sees it; words are English, to be translated."""

    row: StudyRow
    tone: str
    """Colour and shape: an urgency, `meaningless` or `none`."""
    word: str
    """The urgency, large."""
    note: str
    """What it asks of a person, or what it is not; may be empty."""
    titles: tuple[str, ...]
    """Of the flagged findings."""
    earlier_titles: tuple[str, ...]
    """Of findings that an earlier look flagged and the latest did not."""
    failure: str
    """Why the engine could not look at it, as a sentence; empty where it could."""
    limitations: tuple[str, ...]
    """What stood in the way, in plain words."""
    is_incomplete: bool
    identity: Identity
    senders: tuple[tuple[str, bool], ...]
    """Each with whether it is words rather than a name."""


def make_entry(board: Board, state: StateFolder, site: Site, row: StudyRow) -> Entry:
    """In the board's thread: the entry of a row."""
    report = board.report(row.key, row.result_number)
    tone, word, note = _headline(row, report)
    current, earlier = _flagged_titles(row, report)
    words = {**BLOCKING_PROBLEMS, **WARNINGS}
    is_meaningless = tone == "meaningless"
    return Entry(
        row=row,
        tone=tone,
        word=word,
        note=note,
        titles=() if is_meaningless else current,
        earlier_titles=() if is_meaningless else earlier,
        failure=FAILURE_WORDS[row.failure] if row.failure is not None else "",
        limitations=tuple(words.get(one, one) for one in row.limitations if row.failure is None),
        is_incomplete=may_be_incomplete(row),
        identity=read_identity(state.spool / row.key, site),
        senders=tuple((SENDER_WORDS.get(one, one), one in SENDER_WORDS) for one in row.senders),
    )


def _headline(row: StudyRow, report: TriageReport | None) -> tuple[str, str, str]:
    if report is not None and report.engine.has_random_weights:
        return "meaningless", NO_RESULT_WORDS, NO_RESULT_NOTE
    if row.state is StudyState.FAILED and row.urgency in (None, Urgency.ROUTINE):
        urgency = Urgency.NOT_ASSESSABLE
        return urgency.value, URGENCY_WORDS[urgency], ACTIONS[urgency]
    if row.urgency is None:
        return "none", NOT_YET_WORDS, ""
    if row.urgency is Urgency.ROUTINE and not row.flagged:
        return row.urgency.value, NO_FLAG_WORDS, NO_FLAG_NOTE
    return row.urgency.value, URGENCY_WORDS[row.urgency], ACTIONS[row.urgency]


def _flagged_titles(
    row: StudyRow, report: TriageReport | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Titles of what the latest look flagged, and of what only an earlier one did."""
    study = main_study(report) if report is not None else None
    if study is None:
        return tuple(map(_plain, row.flagged)), ()
    titles = {finding.code: finding.title for finding in study.findings}
    latest = [finding.code for finding in study.flagged]
    earlier = [code for code in row.flagged if code not in latest]
    named = tuple(titles[code] for code in latest)
    return named, tuple(titles.get(code) or _plain(code) for code in earlier)


def _plain(code: str) -> str:
    return code.replace("_", " ").capitalize()
