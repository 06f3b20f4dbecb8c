"""A page with one user, served to the tests; passwords are hashed quickly."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.page_server import Caller, add_user, serving

from edge_medgemma.runtime.clinic.page.access import users
from edge_medgemma.runtime.clinic.page.api_routes import routes
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As safe as the test needs."""
    monkeypatch.setattr(users, "_COST", 2**8)


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    """A new state folder."""
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


@pytest.fixture
def api_settings() -> ClinicSettings:
    """All defaults; a test may give others."""
    return ClinicSettings()


@pytest.fixture
def api_port(state: StateFolder, api_settings: ClinicSettings) -> Iterator[int]:
    """Port of a server of the API."""
    add_user(state)
    with serving(state, list(routes(state, api_settings)), api_settings) as port:
        yield port


@pytest.fixture
def nurse(api_port: int) -> Caller:
    """A browser that is logged in."""
    caller = Caller(api_port)
    assert caller.log_in().status == 200
    return caller
