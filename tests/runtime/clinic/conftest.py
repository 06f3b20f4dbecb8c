"""A state folder, and a worklist in it."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.store import Worklist


@pytest.fixture(autouse=True)
def pynetdicom_as_it_was() -> Iterator[None]:
    """A node and a pull tell pynetdicom, for their whole process, how to receive; tests share one."""
    if importlib.util.find_spec("pynetdicom") is None:
        yield
        return
    from pynetdicom import _config, dimse_messages

    new_file, is_chunked = dimse_messages.NamedTemporaryFile, _config.STORE_RECV_CHUNKED_DATASET
    yield
    dimse_messages.NamedTemporaryFile = new_file
    _config.STORE_RECV_CHUNKED_DATASET = is_chunked


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


@pytest.fixture
def worklist(state: StateFolder) -> Iterator[Worklist]:
    with Worklist.open(state) as opened:
        yield opened
