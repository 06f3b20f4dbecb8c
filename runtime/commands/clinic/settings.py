"""`edge-medgemma clinic settings`: an example with every setting, its default and what it means."""

from pathlib import Path

import click

import edge_medgemma.runtime.clinic

EXAMPLE = Path(edge_medgemma.runtime.clinic.__file__).parent / "settings_example.toml"


@click.command(epilog="Example: edge-medgemma clinic settings > clinic.toml")
def command() -> None:
    """Print an example of the settings file, every setting with its default."""
    click.echo(EXAMPLE.read_text(encoding="utf-8"), nl=False)
