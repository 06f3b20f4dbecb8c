"""What README and docs name exists: commands and their options, paths, make targets, extras."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edge_medgemma.runtime.cli import COMMANDS, SUMMARIES, cli

ROOT = Path(__file__).resolve().parents[2]
LISTED = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split()
PAGES = sorted(path for path in LISTED if not path.startswith("tests/data"))
TARGETS = set(
    re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
)
PLACEHOLDER = re.compile(r"[A-Z]{3,}|\.\.\.|…|\[")


def page_text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def command_lines(text: str) -> list[str]:
    """Commands in shell blocks, with lines that go on joined and comments cut."""
    lines = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        lines += [
            line.partition("  #")[0].strip() for line in block.replace("\\\n", " ").splitlines()
        ]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_are_understood(page: str) -> None:
    for line in command_lines(page_text(page)):
        if not line.startswith("edge-medgemma ") or PLACEHOLDER.search(line):
            continue
        words = shlex.split(line)
        command: click.Command = cli
        context = click.Context(cli)
        arguments = words[1:]
        while (
            isinstance(command, click.Group)
            and arguments
            and arguments[0] in command.list_commands(context)
        ):
            found = command.get_command(context, arguments.pop(0))
            assert found is not None
            command = found
        known = {
            name for option in command.params for name in (*option.opts, *option.secondary_opts)
        }
        used = {word.partition("=")[0] for word in arguments if word.startswith("-")}
        assert used - known <= {"-h", "--help", "--version"}, line


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_of_a_page_exist(page: str) -> None:
    text, folder = page_text(page), (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not target.startswith(("http", "mailto")):
            assert (folder / target).exists(), target
    paths = re.findall(r"`((?:runtime|export|calibration|tests|docs|jetson|box)/[\w./-]+)`", text)
    for path in paths:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_extras_and_advice_of_a_page(page: str) -> None:
    text = page_text(page)
    for line in command_lines(text):
        if line.startswith("make "):
            assert line.split()[1] in TARGETS, line
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = {one for group in re.findall(r"'\.\[([\w,-]+)\]'", text) for one in group.split(",")}
    assert extras <= set(project["project"]["optional-dependencies"])
    assert not re.search(r"pip install (-\w+ )*'?edge-medgemma", text), "it is on no index"


def test_the_readme_is_short() -> None:
    assert len(page_text("README.md").splitlines()) <= 150


@pytest.mark.parametrize("name", COMMANDS)
def test_summary_in_the_list_is_the_commands_own(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.get_short_help_str(limit=200) == SUMMARIES[name]
    assert "Example" in CliRunner().invoke(cli, [name, "--help"]).output
