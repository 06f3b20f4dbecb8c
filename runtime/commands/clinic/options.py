"""Options that the clinic's commands share.

Given to `clinic` itself they hold for the command after it too: `clinic --state DIR worklist`.
"""

import contextlib
import os
from pathlib import Path

import click

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.store.places import data_folder

SYSTEM_STATE = Path("/var/lib/edge-medgemma/clinic")
SYSTEM_SETTINGS = Path("/etc/edge-medgemma/clinic.toml")


def default_state() -> Path:
    """State folder where none is named: the service's own, the system's for root, else the user's."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]  # set by systemd
    if given:
        return Path(given)
    return SYSTEM_STATE if _is_root() else data_folder() / "clinic"


def default_settings() -> Path | None:
    """Settings file where none is named: the system's where there is one."""
    return SYSTEM_SETTINGS if SYSTEM_SETTINGS.exists() else None


def become_owner(folder: Path) -> None:
    """As root, go on as the user whose folder this is: root's files in it would stop the service."""
    if not _is_root():
        return
    import pwd

    with contextlib.suppress(FileNotFoundError):
        owner = folder.stat()
        if owner.st_uid == 0:
            return
        with contextlib.suppress(KeyError):  # an owner without an account
            account = pwd.getpwuid(owner.st_uid)
            os.environ["HOME"] = account.pw_dir
            os.initgroups(account.pw_name, owner.st_gid)
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _of_group(context: click.Context, name: str) -> object:
    """Value of an option that was given to `clinic` itself, before the name of the command."""
    return context.parent.params.get(name) if context.parent else None


def _state(context: click.Context, parameter: click.Parameter, path: Path | None) -> StateFolder:
    above = _of_group(context, "state")
    if path is None and isinstance(above, StateFolder):
        return above
    folder = path or default_state()
    become_owner(folder)
    return StateFolder(folder)


def _settings_file(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    above = _of_group(context, "settings_file")
    return path or (above if isinstance(above, Path) else default_settings())


def _lan(context: click.Context, parameter: click.Parameter, lan: bool) -> bool:
    return lan or bool(_of_group(context, "lan"))


state_option = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    callback=_state,
    show_default=f"{SYSTEM_STATE} for root and the service, else the user's data folder",
    metavar="DIR",
    help="Folder of what was received, found and sent.",
)
"""Gives `state`, a StateFolder whose folders need not exist yet: call `create`."""

settings_option = click.option(
    "--settings",
    "settings_file",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_settings_file,
    show_default=f"{SYSTEM_SETTINGS} where there is one",
    metavar="FILE",
    help="Settings; 'clinic settings' prints an example with every one of them.",
)
"""Gives `settings_file`, which `read_settings` takes."""

lan_option = click.option(
    "--lan",
    is_flag=True,
    callback=_lan,
    help="Answer other machines of the local network too, not this one alone.",
)
