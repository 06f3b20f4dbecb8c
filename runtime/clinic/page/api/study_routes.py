"""The worklist for programs and for the page: studies, results, and who was told of them."""

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from edge_medgemma.runtime.clinic.arrivals.recent import RecentAssociation, recent_associations
from edge_medgemma.runtime.clinic.arrivals.space import Space
from edge_medgemma.runtime.clinic.clock import is_clock_set
from edge_medgemma.runtime.clinic.page.access.refusals import error_response
from edge_medgemma.runtime.clinic.page.api.bodies import JSON, json_response, read_body
from edge_medgemma.runtime.clinic.page.api.operations import Operation
from edge_medgemma.runtime.clinic.page.api.services import Services
from edge_medgemma.runtime.clinic.page.api.visits import note_view, visitor_name
from edge_medgemma.runtime.clinic.questions.attendance import EngineCard, engine_card
from edge_medgemma.runtime.clinic.settings import ResultKind
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.records import Acknowledgement, StudyRow
from edge_medgemma.runtime.clinic.worklist.results import result_folder, result_numbers
from edge_medgemma.runtime.errors import WorklistError
from edge_medgemma.runtime.reporting.report_folder import KEY_IMAGE_FOLDER, TRIAGE_FILE

PNG = "image/png"
NO_RESULT = "The study has no such result."
_KEY_IMAGE = re.compile("[0-9]{3,6}[.]png")

StaffName = Annotated[str, msgspec.Meta(pattern=r"^\w[\w .'@+-]{0,63}$")]


@dataclass(frozen=True, slots=True)
class StudyList:
    """The worklist."""

    version: str
    """Changes with any of the studies."""
    studies: tuple[StudyRow, ...]
    """In the order in which people should read them."""
    engine: EngineCard | None
    """None while no engine runs."""


@dataclass(frozen=True, slots=True)
class StudyDetail:
    """One study."""

    study: StudyRow
    results: tuple[int, ...]
    """Numbers of its results, the latest last."""
    acknowledgements: tuple[Acknowledgement, ...]


@dataclass(frozen=True, slots=True)
class AcknowledgementRequest:
    """Body of an acknowledgement."""

    result_number: int
    """The latest; another one is refused, for it is not what the worklist shows."""
    received_by: StaffName
    """Who of the staff was told; never a patient."""
    method: Literal["in person", "telephone", "message", "page"]


@dataclass(frozen=True, slots=True)
class BoxStatus:
    """How the box is."""

    engine: EngineCard | None
    waiting_questions: int
    free_bytes: int
    has_room: bool
    """Whether scans are received; below the reserve they are not."""
    is_clock_set: bool


@dataclass(frozen=True, slots=True)
class AssociationList:
    """What scanners and archives did last."""

    associations: tuple[RecentAssociation, ...]


@dataclass(frozen=True, slots=True)
class Destination:
    """An archive or health-record system that is sent results."""

    name: str
    kind: Literal["dicom", "health record"]
    results: tuple[ResultKind, ...]


@dataclass(frozen=True, slots=True)
class DestinationList:
    """Of the settings."""

    destinations: tuple[Destination, ...]


class StudyRoutes:
    """Routes over one worklist."""

    def __init__(self, services: Services) -> None:
        """Of a page's process."""
        self._services = services

    def operations(self) -> list[Operation]:
        """All of them."""
        study = "/api/studies/{key}"
        told = f"{study}/acknowledgements"
        return [
            Operation("GET", "/api/status", self.status, None, BoxStatus),
            Operation("GET", "/api/associations", self.associations, None, AssociationList),
            Operation("GET", "/api/destinations", self.destinations, None, DestinationList),
            Operation("GET", "/api/studies", self.studies, None, StudyList),
            Operation("GET", study, self.study, None, StudyDetail),
            Operation("GET", f"{study}/results/{{number}}", self.result, None, JSON),
            Operation(
                "GET", f"{study}/results/{{number}}/key_images/{{name}}", self.key_image, None, PNG
            ),
            Operation("POST", told, self.acknowledge, AcknowledgementRequest, Acknowledgement, 201),
        ]

    async def status(self, request: Request) -> Response:
        """How the box is: engine, disk, clock."""
        services = self._services
        space = Space(services.state, services.settings.node.reserve_gb)
        return json_response(
            BoxStatus(
                engine_card(services.state),
                services.mailbox.waiting(),
                space.free_bytes(),
                space.has_room(),
                is_clock_set(),
            )
        )

    async def associations(self, request: Request) -> Response:
        """The last DICOM associations, newest first."""
        found = await run_sync(recent_associations, self._services.state)
        return json_response(AssociationList(found))

    async def destinations(self, request: Request) -> Response:
        """Where results are sent."""
        settings = self._services.settings
        peers = [Destination(one.name, "dicom", one.results) for one in settings.peers]
        records = [Destination(one.name, "health record", ()) for one in settings.health_records]
        sent = [one for one in peers if one.results]
        return json_response(DestinationList((*sent, *records)))

    async def studies(self, request: Request) -> Response:
        """The worklist, in the order in which people should read it."""
        services = self._services
        rows = await run_sync(lambda: services.worklist().studies())
        version = hashlib.sha256(msgspec.json.encode(rows)).hexdigest()[:16]
        return json_response(StudyList(version, rows, engine_card(services.state)))

    async def study(self, request: Request) -> Response:
        """One study with the numbers of its results and who was told."""
        key, services = request.path_params["key"], self._services

        def read() -> StudyDetail:
            row = services.study(key)
            told = services.worklist().acknowledgements(key)
            return StudyDetail(row, result_numbers(services.state, key), told)

        detail = await run_sync(read)
        await note_view(request, key)
        return json_response(detail)

    async def result(self, request: Request) -> Response:
        """A result as triage.json; `latest` stands for the number of the latest."""
        key, given = request.path_params["key"], request.path_params["number"]
        services = self._services

        def read() -> bytes:
            row = services.study(key)
            number = row.result_number if given == "latest" else _number(given)
            if number is None:
                raise WorklistError("There is no result yet.")
            try:
                return (result_folder(services.state, key, number) / TRIAGE_FILE).read_bytes()
            except FileNotFoundError:
                raise WorklistError(NO_RESULT) from None

        data = await run_sync(read)
        await note_view(request, key)
        return Response(data, media_type="application/json")

    async def key_image(self, request: Request) -> Response:
        """A key image of a result, by the name of its file: 001.png, 002.png, in the report's order."""
        key, name = request.path_params["key"], request.path_params["name"]
        number = _number(request.path_params["number"])
        services = self._services

        def read() -> bytes:
            services.study(key)
            if number is None or not _KEY_IMAGE.fullmatch(name):
                raise WorklistError(NO_RESULT)
            folder = result_folder(services.state, key, number) / KEY_IMAGE_FOLDER
            try:
                data: bytes = (folder / name).read_bytes()
                return data
            except FileNotFoundError:
                raise WorklistError(NO_RESULT) from None

        return Response(await run_sync(read), media_type=PNG)

    async def acknowledge(self, request: Request) -> Response:
        """Say that a person was told of the latest result."""
        body = await read_body(request, AcknowledgementRequest)
        key, services, who = request.path_params["key"], self._services, visitor_name(request)
        row = await run_sync(services.study, key)
        if row.result_number is None or row.result_number != body.result_number:
            words = "There is a newer result, or none. Look at the study again."
            return error_response(409, "not_latest", words)
        acknowledgement = Acknowledgement(
            study_key=key,
            result_number=body.result_number,
            finding=",".join(row.flagged) or "none",
            identified_at=row.result_at or "",
            communicated_by=who,
            received_by=body.received_by.strip(),
            received_at=audit.utc_now(),
            method=body.method,
        )
        await run_sync(lambda: services.worklist().acknowledge(acknowledgement))
        return json_response(acknowledgement, 201)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
