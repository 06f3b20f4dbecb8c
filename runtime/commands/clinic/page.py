"""`edge-medgemma clinic page`: the process that serves the page; `clinic` starts it."""

from pathlib import Path

import click

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.commands.clinic.options import (
    lan_option,
    settings_option,
    state_option,
)


@click.command(epilog="Example: edge-medgemma clinic page --state /tmp/clinic")
@state_option
@settings_option
@lan_option
def command(state: StateFolder, settings_file: Path | None, lan: bool) -> None:
    """Serve the page alone; 'clinic' without a command starts it with the others."""
    from edge_medgemma.runtime.clinic.page.page_process import run_page
    from edge_medgemma.runtime.clinic.settings import read_settings

    settings = read_settings(settings_file)
    state.create()
    run_page(state, settings, is_lan=lan)
