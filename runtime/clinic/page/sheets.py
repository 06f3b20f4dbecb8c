"""The report of a result on paper: one A4 page, in the reader's language."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from edge_medgemma.runtime.clinic.page.board import Board
from edge_medgemma.runtime.clinic.page.entries import make_entry
from edge_medgemma.runtime.clinic.page.languages import language_of
from edge_medgemma.runtime.clinic.page.rendering import NO_STORE
from edge_medgemma.runtime.clinic.page.views import study_key_of
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.reporting.html_report import render_html
from edge_medgemma.runtime.reporting.options import RenderOptions, StudyContext

SHEET_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
)
"""The sheet is one file with its style inside; it runs no script."""


async def sheet(request: Request) -> Response:
    """A result of a study, the latest by default; `?result=` names another."""
    board: Board = request.app.state.board
    state: StateFolder = request.app.state.folder
    settings: ClinicSettings = request.app.state.settings
    language = language_of(request, settings.site.language)
    key = study_key_of(request)
    wanted = request.query_params.get("result", "")
    if wanted and not (wanted.isascii() and wanted.isdigit() and len(wanted) < 9):
        raise HTTPException(404)

    def render() -> str | None:
        row = board.row(key)
        if row is None:
            return None
        report = board.report(key, int(wanted) if wanted else row.result_number)
        if report is None:
            return None
        entry = make_entry(board, state, settings.site, row)
        is_latest = not wanted or int(wanted) == row.result_number
        context = StudyContext(
            accession_number=entry.identity.accession,
            doubts=tuple(row.doubts),
            earlier_flags=entry.earlier_titles if is_latest else (),
            short_key=key[:8],
        )
        return render_html(report, RenderOptions(language, {row.study_uid: context}))

    text = await board.run(render)
    if text is None:
        raise HTTPException(404)
    headers = {**NO_STORE, "Content-Security-Policy": SHEET_POLICY}
    return HTMLResponse(text, headers=headers)
