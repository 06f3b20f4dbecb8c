"""`edge-medgemma clinic user`: who may log in to the page."""

import click

from edge_medgemma.runtime.clinic.page.access.users import SHORTEST_PASSWORD, Users
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.commands.clinic.options import state_option


@click.group(epilog='Example: edge-medgemma clinic user add "Dr Amina Bello"')
def command() -> None:
    """Add, remove or list the people who may log in to the page."""


@command.command(epilog="Example: edge-medgemma clinic user add amina")
@click.argument("name")
@state_option
@click.password_option(
    help=f"At least {SHORTEST_PASSWORD} characters; asked for where it is not given."
)
def add(name: str, state: StateFolder, password: str) -> None:
    """Let NAME log in; the name stands beside what this person acknowledges."""
    state.create()
    name = Users(state).add(name, password)
    audit.append(state, "user_added", "box", detail=name)
    click.echo(f"{name} may log in")


@command.command(epilog="Example: edge-medgemma clinic user remove amina")
@click.argument("name")
@state_option
def remove(name: str, state: StateFolder) -> None:
    """Let NAME in no longer; what this person has open ends at once."""
    state.create()
    Users(state).remove(name)
    audit.append(state, "user_removed", "box", detail=name)
    click.echo(f"{name} may not log in any more")


@command.command(name="list", epilog="Example: edge-medgemma clinic user list")
@state_option
def list_users(state: StateFolder) -> None:
    """Print the names of all who may log in, one a line."""
    for name in Users(state).names():
        click.echo(name)
