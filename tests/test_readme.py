import re
import tomllib

import pytest
from click.testing import CliRunner
from readme import ALL_COMMANDS, README, documented_commands, with_current_help

from edge_medgemma.runtime.cli import SUMMARIES, cli

EXTRAS = re.compile(r"edge-medgemma\[([\w,]+)\]")
TEXT = README.read_text(encoding="utf-8")


def test_help_texts_are_current() -> None:
    assert with_current_help(TEXT) == TEXT, "run `make readme`"


def test_every_command_is_documented() -> None:
    assert documented_commands(TEXT) == ALL_COMMANDS


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_summary_in_the_list_is_the_commands_own(name: str) -> None:
    command = cli.get_command(None, name)
    assert command.get_short_help_str(limit=200) == SUMMARIES[name]
    help_text = CliRunner().invoke(cli, [name, "--help"]).output
    assert "Example" in help_text


def test_extras_named_in_the_readme_exist() -> None:
    project = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))
    named = {name for group in EXTRAS.findall(TEXT) for name in group.split(",")}
    assert named >= {"cpu", "export", "verify"}
    assert named <= set(project["project"]["optional-dependencies"])
