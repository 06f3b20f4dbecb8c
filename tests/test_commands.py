"""Every command and sub-command has a test that walks its success path as a user calls it.

`python tests/test_commands.py` prints the table.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click

from edge_medgemma.runtime.cli import cli

TESTS = Path(__file__).resolve().parent
MARKED_TEST = re.compile(
    r"^((?:@pytest\.mark\.command\(\"[a-z ]+\"\)\n)+)(?:@.*\n|[ )\]].*\n)*def (test_\w+)",
    re.MULTILINE,
)


def command_names(group: click.Group = cli, prefix: str = "") -> Iterator[str]:
    """Names of all commands below `group`, sub-commands with their group's name before them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{prefix}{name}"
        if isinstance(command, click.Group):
            yield from command_names(command, f"{prefix}{name} ")


def marked_tests() -> dict[str, list[str]]:
    """Command -> tests marked with it, as `path::name`."""
    tests = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for marks, test in MARKED_TEST.findall(path.read_text(encoding="utf-8")):
            for name in re.findall(r'"([a-z ]+)"', marks):
                tests[name].append(f"{path.relative_to(TESTS.parent)}::{test}")
    return tests


def test_every_command_is_walked_to_its_success() -> None:
    assert set(marked_tests()) == set(command_names())


if __name__ == "__main__":
    for command, tests in sorted(marked_tests().items()):
        print(f"{command:20}{', '.join(tests)}")
