"""One running node for all tests of this folder that do not end it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clinic_node import ClinicNode, clinic_node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClinicNode]:
    """Each test sends a study of its own, by an AE title of its own."""
    folder: Path = tmp_path_factory.mktemp("node")
    with clinic_node(folder) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text()
