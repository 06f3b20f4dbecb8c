"""`edge-medgemma clinic`: the box of a clinic, and the commands around it."""

from importlib import import_module
from pathlib import Path

import click

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.commands.clinic.options import (
    lan_option,
    settings_option,
    state_option,
)

COMMANDS = {
    "add": "add",
    "certificate": "certificate",
    "check": "check",
    "node": "node",
    "page": "page",
    "pull": "pull",
    "send": "send",
    "settings": "settings",
    "token": "token",
    "user": "user",
    "worker": "worker",
    "worklist": "worklist",
}
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


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    epilog="Example: edge-medgemma clinic",
)
@state_option
@settings_option
@lan_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print the addresses as JSON, once all is up."
)
@click.pass_context
def command(
    context: click.Context,
    state: StateFolder,
    settings_file: Path | None,
    lan: bool,
    as_json: bool,
) -> None:
    """Receive scans, triage them and show a worklist on a page.

    Starts three processes and keeps them running until Ctrl-C: one receives and sends, one holds the
    engine, one serves the page.
    """
    if context.invoked_subcommand is None:
        from edge_medgemma.runtime.commands.clinic.run import run

        run(state, settings_file, is_lan=lan, as_json=as_json)
