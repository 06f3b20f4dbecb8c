"""One result, built once, in a state folder of the test's own."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.sample_results import publish, sample_report, sample_state, write_study

from edge_medgemma.runtime.clinic.delivery.deliverables import build_deliverables
from edge_medgemma.runtime.clinic.settings import ClinicSettings, HealthRecord, Peer, ResultKind
from edge_medgemma.runtime.clinic.state_folder import StateFolder

KINDS = (ResultKind.SR, ResultKind.KOS, ResultKind.SC)


@dataclass(frozen=True)
class Sent:
    """A state folder with a result in its outbox, for a peer and a health record."""

    state: StateFolder
    key: str
    settings: ClinicSettings

    def to(self, *peers: Peer, records: tuple[HealthRecord, ...] = ()) -> ClinicSettings:
        """The settings with these destinations in place of the ones it was built for."""
        return replace(self.settings, peers=peers, health_records=records)

    @property
    def folder(self) -> Path:
        return self.state.outbox / f"{self.key}-1"


@pytest.fixture(scope="session")
def built_state(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """Do not alter it."""
    state = sample_state(tmp_path_factory.mktemp("built") / "state")
    key = write_study(state, "ct")
    publish(state, key, sample_report("ct"))
    settings = ClinicSettings(
        peers=(Peer("archive", "ARCHIVE", "127.0.0.1", 1, results=KINDS),),
        health_records=(HealthRecord("record", fhir_url="http://127.0.0.1:1"),),
    )
    build_deliverables(state, settings, key, 1)
    return Sent(state, key, settings)


@pytest.fixture
def sent(built_state: Sent, tmp_path: Path) -> Sent:
    """A copy to be delivered."""
    state = StateFolder(Path(shutil.copytree(built_state.state.path, tmp_path / "state")))
    return replace(built_state, state=state)


class Clock:
    """Monotonic seconds that a test moves on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Callable[[], float]:
    """A clock that stands still."""
    return Clock()
