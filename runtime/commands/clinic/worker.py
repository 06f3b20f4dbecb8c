"""`edge-medgemma clinic worker`: the process that holds the engine."""

import logging
import sys
from pathlib import Path

import click

from edge_medgemma.runtime.clinic.settings import read_settings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.commands.clinic.options import settings_option, state_option


@click.command(
    short_help="Look at what has come, and answer questions.",
    epilog="Example: edge-medgemma clinic worker",
)
@state_option
@settings_option
def command(state: StateFolder, settings_file: Path | None) -> None:
    """Look at what has come, and answer questions: the part of the clinic that holds the engine.

    'edge-medgemma clinic' starts it with the others. It opens no port; with no engine that may be run it
    waits for one, and the page says why.
    """
    sys.modules["urllib3"] = None  # type: ignore[assignment]  # it opens a socket when pydicom imports it
    from edge_medgemma.runtime.clinic.delivery.deliverables import build_deliverables
    from edge_medgemma.runtime.clinic.worker.stopping import Stop
    from edge_medgemma.runtime.clinic.worker.worker import run_worker

    logging.basicConfig(format="worker: %(message)s")
    logging.getLogger("edge_medgemma").setLevel(logging.INFO)  # other libraries say a lot
    settings = read_settings(settings_file)
    stop = Stop()
    with stop.listening():
        run_worker(state, settings, stop, build_deliverables)
