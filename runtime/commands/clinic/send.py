"""`edge-medgemma clinic send`: a result to an archive once more."""

from pathlib import Path

import click

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.commands.clinic.options import settings_option, state_option


@click.command(epilog="Example: edge-medgemma clinic send archive --study 1a2b3c4d")
@click.argument("destination", metavar="PEER")
@click.option(
    "--study",
    "key",
    required=True,
    metavar="KEY",
    help="Study as 'clinic worklist' prints it, or more of its key.",
)
@state_option
@settings_option
def command(destination: str, key: str, state: StateFolder, settings_file: Path | None) -> None:
    """Send the latest result of a study to PEER, an archive or health record of the settings, again.

    The node sends it, as the same objects as the first time: an archive that has them keeps one of each.
    """
    from edge_medgemma.runtime.clinic.delivery.resend import send_again
    from edge_medgemma.runtime.clinic.heartbeat import seconds_since_beat
    from edge_medgemma.runtime.clinic.settings import read_settings
    from edge_medgemma.runtime.commands.clinic.taken import SHOWN_KEY_LETTERS

    settings = read_settings(settings_file)
    study_key = _study_key(state, key)
    number = send_again(state, settings, destination, study_key)
    click.echo(f"result {number} of study {study_key[:SHOWN_KEY_LETTERS]} is in the outbox again")
    if seconds_since_beat(state, "node") is None:
        click.echo("the node does not run: it is sent once 'edge-medgemma clinic' does", err=True)


def _study_key(state: StateFolder, begin: str) -> str:
    """The one study whose key begins so.

    Raises:
        WorklistError: there is none, or more than one.
    """
    from edge_medgemma.runtime.clinic.worklist.store import Worklist
    from edge_medgemma.runtime.commands.clinic.taken import SHOWN_KEY_LETTERS
    from edge_medgemma.runtime.errors import WorklistError

    wanted = begin.strip().lower()
    keys: list[str] = []
    if state.database.exists() and len(wanted) >= SHOWN_KEY_LETTERS:
        with Worklist.open(state) as worklist:
            keys = [row.key for row in worklist.studies() if row.key.startswith(wanted)]
    if len(keys) != 1:
        found = "more than one study" if keys else "no study"
        raise WorklistError(
            f"{found} of the worklist has a key that begins so; take it from 'edge-medgemma clinic "
            f"worklist', at least {SHOWN_KEY_LETTERS} letters"
        )
    return keys[0]
