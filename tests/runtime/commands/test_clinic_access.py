"""`clinic user` and `clinic token`: who may use the page and the API."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.clinic.page.access.tokens import Tokens
from edge_medgemma.runtime.clinic.page.access.users import Users
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.errors import AccessError


def _run(state: Path, *words: str) -> Result:
    command, action, *rest = words
    return CliRunner().invoke(cli, ["clinic", command, action, "--state", str(state), *rest])


@pytest.mark.command("clinic user add")
@pytest.mark.command("clinic user list")
@pytest.mark.command("clinic user remove")
def test_users_are_added_listed_and_removed(tmp_path: Path) -> None:
    password = "a few words will do"
    added = _run(tmp_path, "user", "add", "Zoë N.", "--password", password)
    assert (added.output, added.exit_code) == ("Zoë N. may log in\n", 0)
    assert _run(tmp_path, "user", "list").output == "Zoë N.\n"
    users = Users(StateFolder(tmp_path))
    assert users.check("Zoë N.", password) and not users.check("Zoë N.", "wrong")
    again = _run(tmp_path, "user", "add", "zoë n.", "--password", password)
    assert isinstance(again.exception, AccessError) and "already" in str(again.exception)
    short = _run(tmp_path, "user", "add", "b", "--password", "short")
    assert "10 to 256 characters" in str(short.exception)
    assert _run(tmp_path, "user", "remove", "Zoë N.").exit_code == 0
    assert _run(tmp_path, "user", "list").output == ""
    assert _run(tmp_path, "user", "remove", "Zoë N.").exit_code == 1
    lines = [(line.event, line.detail) for line in audit.read(StateFolder(tmp_path))]
    assert lines == [("user_added", "Zoë N."), ("user_removed", "Zoë N.")]


@pytest.mark.command("clinic token add")
@pytest.mark.command("clinic token list")
@pytest.mark.command("clinic token remove")
def test_a_token_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    token = _run(tmp_path, "token", "add", "records").output.strip()
    tokens = Tokens(StateFolder(tmp_path))
    assert tokens.find(token) == "records" and tokens.find(token[:-1]) is None
    assert token not in StateFolder(tmp_path).tokens_file.read_text()
    assert _run(tmp_path, "token", "list").output == "records\n"
    assert _run(tmp_path, "token", "remove", "records").exit_code == 0
    assert tokens.find(token) is None


def test_a_damaged_file_of_users_lets_nobody_in(tmp_path: Path) -> None:
    _run(tmp_path, "user", "add", "a", "--password", "a few words will do")
    StateFolder(tmp_path).users_file.write_text("{")
    listed = _run(tmp_path, "user", "list")
    assert isinstance(listed.exception, AccessError) and "is damaged" in str(listed.exception)
