"""The example of the settings: nothing is missing from it, and what it calls a default is one."""

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.clinic.settings import (
    ClinicSettings,
    HealthRecord,
    Peer,
    WatchedFolder,
    read_settings,
)
from edge_medgemma.runtime.errors import SettingsError

LISTS: dict[str, type] = {
    "peers": Peer,
    "health_records": HealthRecord,
    "watched_folders": WatchedFolder,
}


@pytest.fixture
def example() -> str:
    return CliRunner().invoke(cli, ["clinic", "settings"], catch_exceptions=False).output


def uncommented(text: str) -> str:
    """The example with every setting in force."""
    return re.sub(r"^# (?=\[\[|[a-z0-9_]+ = )", "", text, flags=re.MULTILINE)


def defaults(kind: type) -> Iterator[tuple[str, Any]]:
    """Names of a dataclass's fields and their defaults; MISSING where one must be given."""
    for each in dataclasses.fields(kind):
        yield each.name, each.default


@pytest.mark.command("clinic settings")
def test_as_printed_it_changes_nothing(example: str, tmp_path: Path) -> None:
    path = tmp_path / "clinic.toml"
    path.write_text(example)
    assert read_settings(path) == ClinicSettings()


def test_every_setting_is_in_it_and_parses(example: str, tmp_path: Path) -> None:
    path = tmp_path / "clinic.toml"
    path.write_text(uncommented(example))
    read_settings(path)
    shown = tomllib.loads(path.read_text())
    sections = {each.name: type(getattr(ClinicSettings(), each.name))
                for each in dataclasses.fields(ClinicSettings) if each.name not in LISTS}  # fmt: skip
    assert set(shown) == set(sections) | set(LISTS)
    for name, kind in {**sections, **LISTS}.items():
        section = shown[name][0] if name in LISTS else shown[name]
        assert set(section) == {field for field, _ in defaults(kind)}, name


def test_what_it_calls_a_default_is_one(example: str) -> None:
    shown = tomllib.loads(uncommented(example))
    for name, section in shown.items():
        kind = LISTS.get(name) or type(getattr(ClinicSettings(), name))
        for field, default in defaults(kind):
            value = section[0][field] if name in LISTS else section[field]
            if default is None or default is dataclasses.MISSING:
                continue  # an example of what can be said
            assert value == (list(default) if isinstance(default, tuple) else default), field


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[node]\nport = 0\n", "port"),
        ("[page]\nplain = true\n", "unknown field"),
        ('[node]\nae_title = "A TITLE THAT IS TOO LONG"\n', "ae_title"),
        ("[node\n", "clinic.toml"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "clinic.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_settings(path)
