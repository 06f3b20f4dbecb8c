"""`edge-medgemma clinic token`: programs that may use the API."""

import click

from edge_medgemma.runtime.clinic.page.access.tokens import Tokens
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.commands.clinic.options import state_option


@click.group(epilog="Example: edge-medgemma clinic token add records")
def command() -> None:
    """Add, remove or list the programs that may use the API."""


@command.command(epilog="Example: edge-medgemma clinic token add records")
@click.argument("name")
@state_option
def add(name: str, state: StateFolder) -> None:
    """Make a token for the program NAME and print it, this once."""
    state.create()
    token = Tokens(state).add(name)
    audit.append(state, "token_added", "box", detail=name)
    click.echo(token)


@command.command(epilog="Example: edge-medgemma clinic token remove records")
@click.argument("name")
@state_option
def remove(name: str, state: StateFolder) -> None:
    """Refuse the program NAME from now on."""
    state.create()
    Tokens(state).remove(name)
    audit.append(state, "token_removed", "box", detail=name)
    click.echo(f"the token '{name}' is refused from now on")


@command.command(name="list", epilog="Example: edge-medgemma clinic token list")
@state_option
def list_tokens(state: StateFolder) -> None:
    """Print the names of all programs, one a line."""
    for name in Tokens(state).names():
        click.echo(name)
