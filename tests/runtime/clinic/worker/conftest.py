"""Files of two phantom studies, with a bleed and without."""

from pathlib import Path

import pytest
from support.clinic_scans import phantom


@pytest.fixture(scope="session")
def bleed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return phantom(tmp_path_factory.mktemp("bleed"), has_bleed=True)


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return phantom(tmp_path_factory.mktemp("quiet"))
