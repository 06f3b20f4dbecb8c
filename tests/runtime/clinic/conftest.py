"""A state folder, and a worklist in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.store import Worklist


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


@pytest.fixture
def worklist(state: StateFolder) -> Iterator[Worklist]:
    with Worklist.open(state) as opened:
        yield opened
