"""The setup page: what is typed into a scanner, and whether all of this device works."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge_medgemma.runtime.clinic.addresses import clinic_address
from edge_medgemma.runtime.clinic.certificates import server_files
from edge_medgemma.runtime.clinic.clock import is_clock_set
from edge_medgemma.runtime.clinic.page.rendering import NO_STORE, render_page
from edge_medgemma.runtime.clinic.questions.attendance import EngineCard, engine_card
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.reporting.translation import Translation, languages


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


async def setup(request: Request) -> Response:
    """Addresses, connections, destinations and the state of the device."""
    state: StateFolder = request.app.state.folder
    settings: ClinicSettings = request.app.state.settings
    now = datetime.now(UTC)
    values = {
        "address": clinic_address(settings, is_lan=request.app.state.is_lan),
        "disk": read_disk(state, settings),
        "now": now.isoformat(),
        "is_clock_set": is_clock_set(now),
        "engine": read_engine(state),
        "packs": [LanguagePack(tag, Translation(tag).is_reviewed) for tag in languages()],
        "has_authority": server_files(state).authority.exists(),
    }
    return render_page(request, "setup.html", values)


async def authority(request: Request) -> Response:
    """Certificate of the box's own authority, for browsers and senders to trust."""
    state: StateFolder = request.app.state.folder
    path = server_files(state).authority
    if not path.exists():
        raise HTTPException(404)
    headers = {**NO_STORE, "Content-Disposition": 'attachment; filename="authority.pem"'}
    return Response(path.read_bytes(), media_type="application/x-x509-ca-cert", headers=headers)


def read_disk(state: StateFolder, settings: ClinicSettings) -> Disk:
    """Space on the file system of the spool."""
    usage = shutil.disk_usage(state.spool if state.spool.exists() else state.path)
    return Disk(usage.free / 1e9, usage.total / 1e9, settings.node.reserve_gb)


def read_engine(state: StateFolder) -> EngineCard | None:
    """What the worker says of its engine; None where none runs."""
    return engine_card(state)
