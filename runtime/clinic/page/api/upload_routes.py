"""Uploads by one PUT a file, which go on where they were broken off."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from edge_medgemma.runtime.clinic.page.access.bodies import FILES
from edge_medgemma.runtime.clinic.page.access.refusals import error_response, note
from edge_medgemma.runtime.clinic.page.api.bodies import BadRequestError, json_response
from edge_medgemma.runtime.clinic.page.api.incoming_file import BUFFER_BYTES
from edge_medgemma.runtime.clinic.page.api.operations import Operation
from edge_medgemma.runtime.clinic.page.api.services import Services
from edge_medgemma.runtime.clinic.page.api.uploads import FileState, Upload, UploadResult, Uploads
from edge_medgemma.runtime.clinic.page.api.visits import visitor_name

_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
UNKNOWN = "This upload has ended. Begin a new one; what came is in the worklist."


@dataclass(frozen=True, slots=True)
class UploadBegun:
    """An upload that files may be sent to."""

    id: str
    max_file_bytes: int


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes of a file that a request brings."""

    first: int
    total: int | None
    """Of the whole file; None where only its end will tell."""


class UploadRoutes:
    """Routes over the uploads of one page's process."""

    def __init__(self, services: Services) -> None:
        """Of a page's process."""
        self._services = services
        self.uploads = Uploads(services.state, services.settings)

    def operations(self) -> list[Operation]:
        """All of them."""
        uploads, one = "/api/uploads", "/api/uploads/{id}"
        file, data = f"{one}/files/{{number}}", "application/octet-stream"
        return [
            Operation("POST", uploads, self.begin, None, UploadBegun, 201),
            Operation("PUT", file, self.put, data, FileState, 201),
            Operation("GET", file, self.file_state, None, FileState),
            Operation("POST", f"{one}/finish", self.finish, None, UploadResult),
            Operation("DELETE", one, self.abandon, status=204),
        ]

    async def begin(self, request: Request) -> Response:
        """Begin an upload of any number of files."""
        name = await run_sync(self.uploads.begin, visitor_name(request))
        return json_response(UploadBegun(name, FILES), 201)

    async def put(self, request: Request) -> Response:
        """Bytes of one file; where they come to its end, it is taken."""
        upload, number = self._upload(request), _file_number(request)
        if upload is None:
            return error_response(404, "unknown_upload", UNKNOWN)
        span = _span(request)
        if number in upload.busy:
            words = "Another request is sending this file."
            return error_response(409, "file_busy", words)
        upload.busy.add(number)
        try:
            return await self._put(request, upload, number, span)
        finally:
            upload.busy.discard(number)

    async def file_state(self, request: Request) -> Response:
        """How much of a file has come."""
        upload = self._upload(request)
        if upload is None:
            return error_response(404, "unknown_upload", UNKNOWN)
        return json_response(upload.state(_file_number(request)))

    async def finish(self, request: Request) -> Response:
        """Say that all files were sent; the engine may look."""
        upload, name, who = self._upload(request), request.path_params["id"], visitor_name(request)
        if upload is None:
            return error_response(404, "unknown_upload", UNKNOWN)
        if upload.busy or not all(upload.state(one).is_complete for one in upload.files):
            words = "A file is not whole yet. Send the rest of it, or delete the upload."
            return error_response(409, "not_whole", words)
        result = await run_sync(lambda: self.uploads.end(name, is_whole=True))
        for study in result.studies:
            await note(self._services.state, "uploaded", who, study.key, str(study.images))
        return json_response(result)

    async def abandon(self, request: Request) -> Response:
        """End an upload before its end; what came is looked at, and doubted."""
        if self._upload(request) is None:
            return error_response(404, "unknown_upload", UNKNOWN)
        name = request.path_params["id"]
        await run_sync(lambda: self.uploads.end(name, is_whole=False))
        return Response(status_code=204)

    def _upload(self, request: Request) -> Upload | None:
        return self.uploads.find(request.path_params["id"], visitor_name(request))

    async def _put(self, request: Request, upload: Upload, number: int, span: _Span) -> Response:
        state = upload.state(number)
        if state.is_complete:
            await drained(request)
            return json_response(state)
        if span.first not in (0, state.received_bytes):
            words = f"The file goes on at byte {state.received_bytes}."
            return error_response(409, "wrong_offset", words)
        if span.first == 0:
            await run_sync(upload.begin_file, number, span.total or 0)
        try:
            await in_pieces(request, lambda data: upload.append(number, data))
        except ClientDisconnect:
            return Response(status_code=499)  # what came stays for the next request
        received = upload.state(number).received_bytes
        if span.total is not None and received < span.total:
            return json_response(upload.state(number), 202)
        if span.total is not None and received > span.total:
            raise BadRequestError("more bytes came than the file was said to have")
        return json_response(await run_sync(upload.complete, number), 201)


async def in_pieces(request: Request, take: Callable[[bytes], None]) -> None:
    """Hand the body over in large pieces, in threads; what came before a break is handed over too.

    Raises:
        ClientDisconnect: the client went away in the middle.
    """
    buffer = bytearray()
    try:
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= BUFFER_BYTES:
                piece, buffer = bytes(buffer), bytearray()
                await run_sync(take, piece)
    except ClientDisconnect:
        if buffer:
            await run_sync(take, bytes(buffer))
        raise
    if buffer:
        await run_sync(take, bytes(buffer))


async def drained(request: Request) -> None:
    """Read a body that nobody needs, so that its sender hears the answer."""
    try:
        async for _ in request.stream():
            pass
    except ClientDisconnect:
        return


def _file_number(request: Request) -> int:
    text = request.path_params["number"]
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise BadRequestError("files are numbered from 0")
    return int(text)


def _span(request: Request) -> _Span:
    length = request.headers.get("content-length")
    given = request.headers.get("content-range")
    if given is None:
        return _Span(0, None if length is None else int(length))
    found = _RANGE.fullmatch(given.strip())
    if found is None:
        raise BadRequestError("Content-Range must be: bytes FIRST-LAST/TOTAL")
    first, last, total = map(int, found.groups())
    if not first <= last < total <= FILES:
        raise BadRequestError("Content-Range must hold FIRST <= LAST < TOTAL, and TOTAL be allowed")
    return _Span(first, total)
