"""Passwords are hashed quickly in tests of the page."""

import pytest

from edge_medgemma.runtime.clinic.page.access import users


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_COST", 2**8)
