"""The command line: names every command and imports none of them until it runs."""

import signal
import sys
from importlib import import_module

import click

from edge_medgemma.runtime.errors import EdgeMedgemmaError

COMMANDS = {
    "triage": "edge_medgemma.runtime.commands.triage",
    "ask": "edge_medgemma.runtime.commands.ask",
    "inspect": "edge_medgemma.runtime.commands.inspect",
    "cache": "edge_medgemma.runtime.commands.cache",
    "clinic": "edge_medgemma.runtime.commands.clinic.group",
    "doctor": "edge_medgemma.runtime.commands.doctor",
    "export": "edge_medgemma.export.commands.export",
    "build": "edge_medgemma.runtime.commands.build",
    "calibrate": "edge_medgemma.export.commands.calibrate",
    "evaluate": "edge_medgemma.calibration.evaluation.commands.evaluate",
    "verify": "edge_medgemma.export.commands.verify",
    "benchmark": "edge_medgemma.export.commands.benchmark",
    "thresholds": "edge_medgemma.calibration.evaluation.commands.thresholds",
    "phantom": "edge_medgemma.calibration.phantoms.command",
}
"""Command name -> module that defines a click command called `command`."""

SUMMARIES = {
    "triage": "Flag findings in a CT, MR or X-ray and say how urgent each study is.",
    "ask": "Ask a free question about a scan.",
    "inspect": "List every volume in a scan and every file skipped.",
    "cache": "List or delete files that make later runs quick.",
    "clinic": "Receive scans, triage them and show a worklist on a page.",
    "doctor": "Say what runs on this device, and what to install.",
    "export": "Convert a MedGemma checkpoint into an engine.",
    "build": "Build the plans of an engine on the device that will run them.",
    "calibrate": "Find the ranges of a model's activations on medical slices, for int8, int4 and fp16.",
    "evaluate": "Triage labelled scans and count what the engine finds, misses and flags wrongly.",
    "verify": "Compare an engine with transformers on its checkpoint.",
    "benchmark": "Measure what this device can do with an engine.",
    "thresholds": "Fit the thresholds of an engine on an evaluation of it.",
    "phantom": "Draw synthetic head CTs and measure an engine on them.",
}
"""Kept here so that `--help` imports no command (a test compares them with the commands)."""


class _Commands(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edge-medgemma")
def cli() -> None:
    """Triage CT, MR and X-ray studies on the device with MedGemma 1.5. Never a diagnosis.

    MedGemma 1.5 is published as a 4B model (MedGemma 1 also as 27B); there is no 2B.

    Example: edge-medgemma triage scan/
    """


def main() -> None:
    """Entry point: every error a user can cause becomes one line on stderr and exit status 1."""
    # A polite kill unwinds like Ctrl-C, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        # Of click's Exit; a command returns nothing
        sys.exit(cli.main(prog_name="edge-medgemma", standalone_mode=False) or 0)
    except click.UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; nothing half-written was left behind", err=True)
        sys.exit(130)
    except (EdgeMedgemmaError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"error: {' '.join(message.split())}", err=True)
        sys.exit(1)
    except MemoryError:
        click.echo("error: out of memory; use fewer --slices or an int4 engine", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"error: {error.strerror or error}; check space and permissions", err=True)
        sys.exit(1)
