"""Pictures for the page: key images of a result, and slices for the viewer."""

import re
from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_medgemma.runtime.clinic.page.board import Board, main_study
from edge_medgemma.runtime.clinic.page.languages import language_of
from edge_medgemma.runtime.clinic.page.rendering import NO_STORE
from edge_medgemma.runtime.clinic.page.slices import Stack
from edge_medgemma.runtime.clinic.page.stacks import StackStore
from edge_medgemma.runtime.clinic.page.views import study_key_of
from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.reporting.labels import minus
from edge_medgemma.runtime.reporting.report_folder import png_bytes
from edge_medgemma.runtime.reporting.translation import Translation, mark
from edge_medgemma.runtime.triage.report import StudyReport

_TAG = re.compile("[0-9a-f]{20}")
_WINDOW = re.compile("[a-z_]{1,20}")

_SERIES_WORDS = {
    "axial": mark("axial"),
    "coronal": mark("coronal"),
    "sagittal": mark("sagittal"),
    "oblique": mark("oblique"),
    "projection": mark("radiograph"),
}


async def key_image(request: Request) -> Response:
    """A key image of a result as PNG."""
    board: Board = request.app.state.board
    key, number = study_key_of(request), int(request.path_params["number"])
    part, place = int(request.path_params["part"]), int(request.path_params["place"])

    def read() -> bytes | None:
        report = board.report(key, number)
        studies = report.studies if report is not None else ()
        if part >= len(studies) or place >= len(studies[part].key_images):
            return None
        return png_bytes(studies[part].key_images[place].pixels)

    return _picture(await board.run(read), "image/png")


async def stack(request: Request) -> Response:
    """What the viewer needs to know of every series of a study, the triaged one first."""
    board: Board = request.app.state.board
    store: StackStore = request.app.state.stacks
    key = study_key_of(request)
    row = await board.run(lambda: board.row(key))
    if row is None:
        raise HTTPException(404)
    report = await board.run(lambda: board.report(key, row.result_number))
    try:
        stacks = await store.stacks(key)
    except ScanError:
        stacks = ()
    found = main_study(report) if report is not None else None
    translation = Translation(language_of(request, request.app.state.settings.site.language))
    ordered = sorted(stacks, key=lambda one: _rank(one, found))
    base = f"/studies/{key}/slices"
    described = [_described(one, base, translation) for one in ordered]
    places = _places(ordered, found) if found is not None else {}
    return JSONResponse({"stacks": described, "places": places}, headers=NO_STORE)


async def slice_image(request: Request) -> Response:
    """A slice in one window as JPEG; 422 where it cannot be decoded."""
    store: StackStore = request.app.state.stacks
    key = study_key_of(request)
    tag, window = str(request.path_params["tag"]), str(request.path_params["window"])
    if not (_TAG.fullmatch(tag) and _WINDOW.fullmatch(window)):
        raise HTTPException(404)
    try:
        data = await store.image(key, tag, window, int(request.path_params["index"]))
    except ScanError:
        data = None
    return _picture(data, "image/jpeg", missing=422)


def _rank(one: Stack, found: StudyReport | None) -> tuple[bool, int]:
    """Images that were triaged, then series of most slices: a series UID may hold several stacks."""
    seen = {image.sop_instance_uid for image in found.slices} if found is not None else set()
    is_triaged = any(source.sop_instance_uid in seen for source in one.series.sources)
    return not is_triaged, -one.series.shape[0]


def _places(stacks: Sequence[Stack], found: StudyReport) -> dict[int, tuple[int, int]]:
    """Slice of the report to its stack and place there now: more may have come since."""
    now = {
        source.sop_instance_uid: (number, index)
        for number, one in reversed(list(enumerate(stacks)))
        for index, source in enumerate(one.series.sources)
        if source.sop_instance_uid
    }
    seen = ((one.slice_index, one.sop_instance_uid) for one in found.slices)
    return {index: now[uid] for index, uid in seen if uid in now}


def _described(one: Stack, base: str, translation: Translation) -> dict[str, Any]:
    count = one.series.shape[0]
    plane = translation.text(_SERIES_WORDS.get(one.series.orientation, one.series.orientation))
    slices = translation.plural("%(num)d slice", "%(num)d slices", count)
    return {
        "base": f"{base}/{one.tag}",
        "label": f"{one.series.modality} · {plane} · {slices}",
        "slices": count,
        "width": one.width,
        "height": one.height,
        "left": one.left_mark,
        "right": one.right_mark,
        "positions": ["" if mm is None else minus(f"{mm:.1f} mm") for mm in one.positions()],
        "windows": [[shown.name, translation.text(shown.label)] for shown in one.windows],
    }


def _picture(data: bytes | None, media_type: str, missing: int = 404) -> Response:
    if data is None:
        raise HTTPException(missing)
    return Response(data, media_type=media_type, headers=NO_STORE)
