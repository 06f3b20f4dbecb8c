"""Views of the page: the worklist, a study, adding a scan, and what tells a browser to look again."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from edge_medgemma.runtime.clinic.clock import is_clock_set
from edge_medgemma.runtime.clinic.page.api.visits import note_view
from edge_medgemma.runtime.clinic.page.board import Board, alarms, main_study, rows_digest
from edge_medgemma.runtime.clinic.page.entries import Entry, make_entry
from edge_medgemma.runtime.clinic.page.rendering import NO_STORE, render_page
from edge_medgemma.runtime.clinic.page.setup_view import engine_problem
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import STUDY_KEY, StateFolder
from edge_medgemma.runtime.clinic.worklist.records import Acknowledgement, StudyRow
from edge_medgemma.runtime.reporting.translation import mark
from edge_medgemma.runtime.reporting.words import NO_FLAG_WORDS, URGENCY_WORDS
from edge_medgemma.runtime.triage.report import TriageReport

LIVE_INTERVAL_S = 0.5
"""Between two looks at the worklist for a browser that waits for news."""

HEARTBEAT_S = 15.0


@dataclass(frozen=True, slots=True)
class EarlierLook:
    """A result before the latest one."""

    number: int
    at: str
    word: str
    titles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StudyView:
    """All that a study's page shows of the worklist and the results."""

    entry: Entry
    number: int | None
    report: TriageReport | None
    earlier: tuple[EarlierLook, ...]
    acknowledgements: tuple[Acknowledgement, ...]


async def worklist(request: Request) -> Response:
    """All studies, in the order of the list."""
    board, state, settings = _parts(request)

    def read() -> tuple[tuple[StudyRow, ...], tuple[Entry, ...]]:
        rows = board.fresh_rows()
        return rows, tuple(make_entry(board, state, settings.site, row) for row in rows)

    rows, entries = await board.run(read)
    warnings = _warnings(state)
    values = {
        "entries": entries,
        "digest": rows_digest(rows, warnings),
        "alarms": alarms(rows),
        "warnings": warnings,
    }
    return render_page(request, "worklist.html", values)


async def study(request: Request) -> Response:
    """One study."""
    board, state, settings = _parts(request)
    key = study_key_of(request)
    view = await board.run(lambda: _study_view(board, state, settings, key))
    if view is None:
        raise HTTPException(404)
    await note_view(request, key)
    notice = view.report.engine.notice if view.report else ""
    values = {
        "entry": view.entry,
        "digest": rows_digest((view.entry.row,)),
        "number": view.number,
        "report": view.report,
        "studies": view.report.studies if view.report else (),
        "is_meaningless": view.entry.tone == "meaningless",
        "earlier": view.earlier,
        "acknowledgements": view.acknowledgements,
        "notice": notice,
        "identified_at": view.entry.row.urgency_at or view.entry.row.result_at,
        "now": datetime.now(UTC).astimezone().strftime("%Y-%m-%dT%H:%M"),
    }
    return render_page(request, "study.html", values)


async def add(request: Request) -> Response:
    """The page on which a folder is dropped."""
    return render_page(request, "add.html", {})


async def live(request: Request) -> Response:
    """Server-sent events: `changed` with a digest of what is shown, whenever it is another one."""
    board, state, _ = _parts(request)
    key = request.query_params.get("study", "")
    if key and not STUDY_KEY.fullmatch(key):
        raise HTTPException(404)
    stopping: asyncio.Event = request.app.state.stopping

    async def events() -> AsyncIterator[str]:
        sent, waited_s = "", 0.0
        yield "retry: 2000\n\n"
        while not stopping.is_set() and not await request.is_disconnected():
            rows = await board.rows()
            shown = tuple(row for row in rows if not key or row.key == key)
            warnings = () if key else _warnings(state)
            digest = rows_digest(shown, warnings)
            data = json.dumps({"digest": digest, "alarms": [] if key else alarms(rows)})
            if data != sent or waited_s >= HEARTBEAT_S:
                yield f"event: changed\ndata: {data}\n\n"
                sent, waited_s = data, 0.0
            waited_s += LIVE_INTERVAL_S
            await asyncio.sleep(LIVE_INTERVAL_S)

    headers = {**NO_STORE, "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def study_key_of(request: Request) -> str:
    """Key of the study in the address.

    Raises:
        HTTPException: 404, what stands there is none.
    """
    key = str(request.path_params["key"])
    if not STUDY_KEY.fullmatch(key):
        raise HTTPException(404)
    return key


def _study_view(
    board: Board, state: StateFolder, settings: ClinicSettings, key: str
) -> StudyView | None:
    row = board.row(key)
    if row is None:
        return None
    report = board.report(key, row.result_number)
    earlier = [
        look
        for number in board.earlier_numbers(row)
        if (look := _earlier_look(board, key, number)) is not None
    ]
    return StudyView(
        entry=make_entry(board, state, settings.site, row),
        number=row.result_number,
        report=report,
        earlier=tuple(earlier),
        acknowledgements=board.acknowledgements(key),
    )


def _earlier_look(board: Board, key: str, number: int) -> EarlierLook | None:
    report = board.report(key, number)
    found = main_study(report) if report is not None else None
    if report is None or found is None:
        return None
    titles = tuple(one.title for one in found.flagged)
    word = URGENCY_WORDS[found.urgency] if titles or found.limitations else NO_FLAG_WORDS
    return EarlierLook(number, report.created_at, word, titles)


def _warnings(state: StateFolder) -> tuple[str, ...]:
    """What is wrong with the whole device."""
    warnings = []
    if not is_clock_set():
        warnings.append(mark("The clock of this device is not set: times are wrong."))
    problem = engine_problem(state)
    if problem:
        warnings.append(problem)
    return tuple(warnings)


def _parts(request: Request) -> tuple[Board, StateFolder, ClinicSettings]:
    state = request.app.state
    return state.board, state.folder, state.settings
