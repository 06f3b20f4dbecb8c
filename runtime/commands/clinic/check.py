"""`edge-medgemma clinic check`: whether the box works, and what to do where it does not."""

from pathlib import Path

import click

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.commands.clinic.options import (
    lan_option,
    settings_option,
    state_option,
)

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(epilog="Example: edge-medgemma clinic check")
@state_option
@settings_option
@lan_option
@click.option("--json", "as_json", is_flag=True, help="Print the lines as JSON.")
def command(state: StateFolder, settings_file: Path | None, lan: bool, as_json: bool) -> None:
    """Look at everything the box needs, and say what to do; exit status 1 where something fails."""
    from edge_medgemma.runtime.clinic.checks.check import check_clinic
    from edge_medgemma.runtime.clinic.checks.line import CheckStatus
    from edge_medgemma.runtime.clinic.settings import read_settings
    from edge_medgemma.runtime.documents import dump_json

    settings = read_settings(settings_file)
    state.create()
    lines = check_clinic(state, settings, is_lan=lan)
    if as_json:
        click.echo(dump_json(lines), nl=False)
    else:
        for line in lines:
            click.echo(
                f"{click.style(f'{line.status.value:5}', fg=_STYLES[line.status])}{line.finding}"
            )
            if line.advice:
                click.echo(f"     -> {line.advice}")
    if any(line.status is CheckStatus.FAIL for line in lines):
        raise click.exceptions.Exit(1)
