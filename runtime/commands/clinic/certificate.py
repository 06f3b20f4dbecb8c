"""`edge-medgemma clinic certificate`: what a scanner or a browser needs for an encrypted connection."""

from pathlib import Path

import click

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.commands.clinic.options import settings_option, state_option


@click.command(epilog="Example: edge-medgemma clinic certificate CT1")
@click.argument("name", required=False)
@state_option
@settings_option
def command(name: str | None, state: StateFolder, settings_file: Path | None) -> None:
    """Make a certificate for the scanner or archive NAME; without one, show this box's authority."""
    from edge_medgemma.runtime.clinic.addresses import server_names
    from edge_medgemma.runtime.clinic.certificates import (
        authority_fingerprint,
        ensure_server_certificate,
        issue_sender_certificate,
    )
    from edge_medgemma.runtime.clinic.settings import read_settings

    settings = read_settings(settings_file)
    files = ensure_server_certificate(state, server_names(settings))
    if name is not None:
        files = issue_sender_certificate(state, name)
        click.echo(f"certificate  {files.certificate}")
        click.echo(f"key          {files.key}  (give it to this sender alone)")
    click.echo(f"authority    {files.authority}")
    click.echo(f"fingerprint  {authority_fingerprint(state)}  (SHA-256)")
