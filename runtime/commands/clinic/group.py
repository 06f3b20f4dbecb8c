"""`edge-medgemma clinic`: the box of a clinic, and the commands around it."""

from importlib import import_module

import click

COMMANDS: dict[str, str] = {}
"""Command name -> module of this folder that defines a click command called `command`."""


class _Commands(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"edge_medgemma.runtime.commands.clinic.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command


@click.group(cls=_Commands, invoke_without_command=True, epilog="Example: edge-medgemma clinic")
def command() -> None:
    """Receive scans, triage them and show a worklist on a page."""
