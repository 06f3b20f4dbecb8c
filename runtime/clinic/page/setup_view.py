"""The setup page: what is typed into a scanner, and whether all of this device works."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from anyio.to_thread import run_sync
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge_medgemma.runtime.clinic.addresses import clinic_address
from edge_medgemma.runtime.clinic.arrivals.recent import OUTCOME_WORDS, recent_associations
from edge_medgemma.runtime.clinic.certificates import authority_fingerprint, server_files
from edge_medgemma.runtime.clinic.clock import is_clock_set
from edge_medgemma.runtime.clinic.delivery.status import DestinationStatus, outbox_status
from edge_medgemma.runtime.clinic.page.rendering import NO_STORE, render_page
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker_status import (
    WorkerState,
    WorkerStatus,
    is_worker_alive,
    read_worker_status,
)
from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.reporting.translation import Translation, languages, mark

ENGINE_AWAY = mark("The engine is not running: nothing is being looked at.")


@dataclass(frozen=True, slots=True)
class CheckedLine:
    """One thing that was tested, by `edge-medgemma clinic check`; in English."""

    is_good: bool
    finding: str
    advice: str


Check = Callable[[], Sequence[CheckedLine]]


@dataclass(frozen=True, slots=True)
class Disk:
    """Space where scans are kept, in GB of 10^9 bytes."""

    free_gb: float
    total_gb: float
    reserve_gb: float

    @property
    def is_low(self) -> bool:
        """Whether scans will be refused soon, or are."""
        return self.free_gb < 2 * self.reserve_gb


@dataclass(frozen=True, slots=True)
class LanguagePack:
    """One language of page and report."""

    tag: str
    is_reviewed: bool


@dataclass(frozen=True, slots=True)
class DestinationLine:
    """A destination of the settings, and how delivery stands; None before anything was to be sent."""

    name: str
    address: str
    status: DestinationStatus | None


async def setup(request: Request) -> Response:
    """Addresses, connections, destinations and the state of the device."""
    return await _rendered(request, ())


async def test_connections(request: Request) -> Response:
    """The same with a test of everything that is there; it takes seconds a destination that is away."""
    check: Check | None = request.app.state.check
    if check is None:
        raise HTTPException(404)
    return await _rendered(request, await run_sync(check))


async def authority(request: Request) -> Response:
    """Certificate of the box's own authority, for browsers and senders to trust."""
    state: StateFolder = request.app.state.folder
    path = server_files(state).authority
    if not path.exists():
        raise HTTPException(404)
    headers = {**NO_STORE, "Content-Disposition": 'attachment; filename="authority.pem"'}
    return Response(path.read_bytes(), media_type="application/x-x509-ca-cert", headers=headers)


def engine_problem(state: StateFolder) -> str:
    """What is wrong with the worker, in English; empty while it works."""
    status = living_worker(state)
    return ENGINE_AWAY if status is None else status.problem


def living_worker(state: StateFolder) -> WorkerStatus | None:
    """What the worker says of itself; None where there is none."""
    status = read_worker_status(state)
    is_gone = status is None or status.state is WorkerState.STOPPED or not is_worker_alive(state)
    return None if is_gone else status


async def _rendered(request: Request, checked: Sequence[CheckedLine]) -> Response:
    state: StateFolder = request.app.state.folder
    settings: ClinicSettings = request.app.state.settings
    now = datetime.now(UTC)
    values = {
        "address": clinic_address(settings, is_lan=request.app.state.is_lan),
        "associations": await run_sync(recent_associations, state),
        "outcome_words": OUTCOME_WORDS,
        "destinations": await run_sync(_destinations, state, settings),
        "disk": _disk(state, settings),
        "now": now.isoformat(),
        "is_clock_set": is_clock_set(now),
        "engine": living_worker(state),
        "engine_problem": engine_problem(state),
        "packs": [LanguagePack(tag, Translation(tag).is_reviewed) for tag in languages()],
        "fingerprint": _fingerprint(state),
        "can_check": request.app.state.check is not None,
        "checked": checked,
    }
    return render_page(request, "setup.html", values)


def _destinations(state: StateFolder, settings: ClinicSettings) -> list[DestinationLine]:
    known = {one.name: one for one in outbox_status(state)}
    peers = [
        DestinationLine(one.name, f"{one.ae_title} {one.host}:{one.port}", known.get(one.name))
        for one in settings.peers
    ]
    records = [
        DestinationLine(
            one.name, one.fhir_url or one.hl7_host or one.folder or "", known.get(one.name)
        )
        for one in settings.health_records
    ]
    return [*peers, *records]


def _disk(state: StateFolder, settings: ClinicSettings) -> Disk:
    usage = shutil.disk_usage(state.path)
    return Disk(usage.free / 1e9, usage.total / 1e9, settings.node.reserve_gb)


def _fingerprint(state: StateFolder) -> str:
    """Of the authority's certificate; empty where there is none."""
    try:
        return authority_fingerprint(state) if server_files(state).authority.exists() else ""
    except ResourceError:
        return ""
