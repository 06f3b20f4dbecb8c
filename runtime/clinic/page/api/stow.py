"""STOW-RS (PS3.18 10.5): scans stored by DICOMweb."""

from dataclasses import dataclass, field
from email.message import Message

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from edge_medgemma.runtime.clinic.arrivals.identity import Identity, read_identity
from edge_medgemma.runtime.clinic.arrivals.intake import Intake
from edge_medgemma.runtime.clinic.page.access.refusals import error_response, note
from edge_medgemma.runtime.clinic.page.api.incoming_file import BUFFER_BYTES, IncomingFile
from edge_medgemma.runtime.clinic.page.api.multipart import (
    MultipartError,
    MultipartReader,
    PartBegin,
    PartData,
    PartEnd,
)
from edge_medgemma.runtime.clinic.page.api.operations import Operation
from edge_medgemma.runtime.clinic.page.api.services import Services
from edge_medgemma.runtime.clinic.page.api.uploads import SENDER, BrokenOffError
from edge_medgemma.runtime.clinic.page.api.visits import visitor_name
from edge_medgemma.runtime.errors import ResourceError, ScanError

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"

OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
OTHER_STUDY = 0xC122
"""PS3.18 table I.2-2 leaves C000 to CFFF to the program."""


@dataclass(slots=True)
class _Stored:
    """What became of the parts, as DICOM JSON."""

    kept: list[dict[str, object]] = field(default_factory=list)
    failed: list[dict[str, object]] = field(default_factory=list)
    unreadable: list[dict[str, object]] = field(default_factory=list)

    def add(self, identity: Identity | None, reason: int | None) -> None:
        """One part: kept, or failed for a reason."""
        item: dict[str, object] = {}
        if identity is not None:
            item["00081150"] = {"vr": "UI", "Value": [identity.sop_class_uid]}
            item["00081155"] = {"vr": "UI", "Value": [identity.sop_uid]}
        if reason is None:
            self.kept.append(item)
            return
        item["00081197"] = {"vr": "US", "Value": [reason]}
        (self.unreadable if identity is None else self.failed).append(item)

    @property
    def status(self) -> int:
        """200 all, 202 some, 409 none."""
        if not self.kept:
            return 409
        return 202 if self.failed or self.unreadable else 200

    def document(self) -> dict[str, object]:
        """The response's dataset (PS3.18 table I.2-1)."""
        sequences = {"00081199": self.kept, "00081198": self.failed, "0008119A": self.unreadable}
        return {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}


class _Parts:
    """Takes the parts of one request in; its functions block."""

    def __init__(self, intake: Intake, reader: MultipartReader, study_uid: str | None) -> None:
        self.stored = _Stored()
        self._intake = intake
        self._reader = reader
        self._study_uid = study_uid
        self._file: IncomingFile | None = None
        self._reason: int | None = None

    def take(self, data: bytes) -> None:
        """Go through one piece of the body."""
        for event in self._reader.feed(data):
            if isinstance(event, PartBegin):
                self._begin(event.content_type)
            elif isinstance(event, PartData):
                self._append(event.data)
            elif isinstance(event, PartEnd):
                self._end()

    def close(self) -> None:
        """Delete a part that was broken off."""
        if self._file is not None:
            self._file.discard()

    def _begin(self, content_type: str) -> None:
        self._file, self._reason = None, None
        if content_type not in ("", DICOM):
            self._reason = CANNOT_UNDERSTAND
            return
        try:
            self._file = IncomingFile(self._intake)
        except ResourceError:
            self._reason = OUT_OF_RESOURCES

    def _append(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.append(data)
        except ResourceError:
            self._reason = OUT_OF_RESOURCES
            self._file.discard()
            self._file = None

    def _end(self) -> None:
        file, self._file = self._file, None
        if file is None:
            self.stored.add(None, self._reason)
            return
        identity = None
        try:
            identity = read_identity(file.path)
            if self._study_uid is not None and identity.study_uid != self._study_uid:
                self.stored.add(identity, OTHER_STUDY)
                return
            self._intake.accept(file.path)
            self.stored.add(identity, None)
        except (ScanError, FileNotFoundError):
            self.stored.add(identity, CANNOT_UNDERSTAND)
        except ResourceError:
            self.stored.add(identity, OUT_OF_RESOURCES)
        finally:
            file.discard()


class StowRoutes:
    """Routes over one spool."""

    def __init__(self, services: Services) -> None:
        """Of a page's process."""
        self._services = services

    def operations(self) -> list[Operation]:
        """All of them."""
        studies, data = "/dicom-web/studies", "multipart/related"
        return [
            Operation("POST", studies, self.store, data, DICOM_JSON),
            Operation("POST", f"{studies}/{{uid}}", self.store, data, DICOM_JSON),
        ]

    async def store(self, request: Request) -> Response:
        """Store the instances of a multipart body, each as soon as it is whole."""
        try:
            reader = MultipartReader(_boundary(request.headers))
        except MultipartError as error:
            return error_response(415, "not_multipart", str(error))
        services = self._services
        intake = Intake(services.state, services.settings, SENDER)
        await run_sync(intake.__enter__)
        parts = _Parts(intake, reader, request.path_params.get("uid"))
        broken: BaseException | None = BrokenOffError()
        try:
            await _read(request, parts)
            reader.close()
            broken = None
        except MultipartError as error:
            return error_response(400, "not_multipart", f"{error}; what was whole is kept")
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            parts.close()
            kind = None if broken is None else type(broken)
            await run_sync(intake.__exit__, kind, broken, None)
        who = visitor_name(request)
        for key, study in intake.studies.items():
            await note(services.state, "uploaded", who, key, str(study.images))
        return JSONResponse(parts.stored.document(), parts.stored.status, media_type=DICOM_JSON)


async def _read(request: Request, parts: _Parts) -> None:
    buffer = bytearray()
    async for chunk in request.stream():
        buffer += chunk
        if len(buffer) >= BUFFER_BYTES:
            piece, buffer = bytes(buffer), bytearray()
            await run_sync(parts.take, piece)
    if buffer:
        await run_sync(parts.take, bytes(buffer))


def _boundary(headers: Headers) -> str:
    """Of a body of DICOM files.

    Raises:
        MultipartError: another type.
    """
    message = Message()
    message["Content-Type"] = headers.get("content-type", "")
    if message.get_content_type() != "multipart/related":
        raise MultipartError(f'the body must be multipart/related; type="{DICOM}"')
    kind = message.get_param("type", DICOM)
    if not isinstance(kind, str) or kind.lower() != DICOM:
        raise MultipartError(f"parts must be {DICOM}")
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str):
        raise MultipartError("Content-Type names no boundary")
    return boundary
