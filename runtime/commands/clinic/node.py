"""`edge-medgemma clinic node`: the process that receives scans and sends results."""

from pathlib import Path

import click

from edge_medgemma.runtime.clinic.settings import read_settings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.commands.clinic.options import (
    lan_option,
    settings_option,
    state_option,
)


@click.command(epilog="Example: edge-medgemma clinic node --state clinic --settings clinic.toml")
@state_option
@settings_option
@lan_option
def command(state: StateFolder, settings_file: Path | None, lan: bool) -> None:
    """Receive scans by DICOM and send results, until it is told to stop.

    'edge-medgemma clinic' starts it with the others.
    """
    from edge_medgemma.runtime.clinic.node_process import run_node

    run_node(state, read_settings(settings_file), is_lan=lan)
