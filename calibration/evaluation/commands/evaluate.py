"""`edge-medgemma evaluate`: what an engine is worth, by scans, questions, reports and requests."""

from importlib import import_module

import click

SUBCOMMANDS = {
    "vqa": "edge_medgemma.calibration.evaluation.commands.vqa",
    "safety": "edge_medgemma.calibration.evaluation.commands.safety",
}
"""Sub-command name -> module that defines a click command called `command`."""


class _Subcommands(click.Group):
    """A group that imports a sub-command's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        found: click.Command = import_module(SUBCOMMANDS[cmd_name]).command
        return found


@click.group(cls=_Subcommands, epilog="Example: edge-medgemma evaluate vqa slake/ --layout slake")
def command() -> None:
    """Measure what an engine is worth."""
