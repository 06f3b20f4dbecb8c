"""One state folder with results of the demo engine, made once; tests that change it take a copy."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.clinic_page import add_user, logged_in
from support.clinic_states import fill

from edge_medgemma.runtime.clinic.page.access import users
from edge_medgemma.runtime.clinic.page.app import create_app
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Site
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.report import TriageReport
from edge_medgemma.runtime.triage.triage_scan import triage_scan

ENGINES = Path(__file__).resolve().parents[5] / "runtime" / "engines"


@pytest.fixture(scope="session")
def demo_report(phantom_scan: Path) -> TriageReport:
    """What the demo engine says about the phantom."""
    with Engine.open(ENGINES / "demo", threads=2) as engine:
        return triage_scan(engine, phantom_scan)


@pytest.fixture(scope="session")
def filled(
    phantom_scan: Path, demo_report: TriageReport, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StateFolder, dict[str, str]]:
    """Studies in every state; do not change it."""
    state = StateFolder(tmp_path_factory.mktemp("clinic") / "state")
    keys = fill(state, phantom_scan, demo_report)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_COST", 2**8)  # as for every test of this folder
        add_user(state)
    return state, keys


@pytest.fixture(scope="session")
def keys(filled: tuple[StateFolder, dict[str, str]]) -> dict[str, str]:
    """What the studies are to their keys."""
    return filled[1]


@pytest.fixture(scope="session")
def client(filled: tuple[StateFolder, dict[str, str]]) -> Iterator[TestClient]:
    """Somebody who is logged in where the site shows nobody's name."""
    app = create_app(filled[0], ClinicSettings(site=Site(demonstration=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_COST", 2**8)
        with logged_in(app) as found:
            yield found
