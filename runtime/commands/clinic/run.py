"""`edge-medgemma clinic` without a command: the three processes, until it is told to stop."""

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from edge_medgemma.runtime.clinic.addresses import (
    ClinicAddress,
    clinic_address,
    server_names,
    uses_https,
)
from edge_medgemma.runtime.clinic.checks.machine import check_ports
from edge_medgemma.runtime.clinic.page.access.users import Users
from edge_medgemma.runtime.clinic.settings import read_settings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.supervisor import PROCESSES, Child, Supervisor
from edge_medgemma.runtime.documents import dump_json


@dataclass(frozen=True, slots=True)
class Started:
    """Output of `clinic --json`: one object, once all is up."""

    address: ClinicAddress
    setup_code: str | None
    """Makes the first user of the page; null once there is one."""


def run(state: StateFolder, settings_file: Path | None, *, is_lan: bool, as_json: bool) -> None:
    """Start the processes, print where they are reached once all are up, and wait for the end.

    Raises:
        SettingsError: of the settings file.
        ResourceError: the state folder cannot be written, or a clinic runs on it already.
    """
    settings = read_settings(settings_file)
    state.create()
    if uses_https(settings, is_lan=is_lan) or settings.node.tls_port is not None:
        from edge_medgemma.runtime.clinic.certificates import ensure_server_certificate

        ensure_server_certificate(state, server_names(settings))
    for line in check_ports(state, settings):
        if line.advice:  # it is tried again and again, and says only that it cannot listen
            click.echo(f"{line.finding}; {line.advice}", err=True)
    address = clinic_address(settings, is_lan=is_lan)

    def announce() -> None:
        started = Started(address, Users(state).setup_code())
        click.echo(dump_json(started).rstrip() if as_json else started_words(started))

    children = [
        Child(name, _command_line(name, state, settings_file, is_lan=is_lan), silence_s)
        for name, silence_s in PROCESSES.items()
    ]
    ports = (settings.node.port, settings.page.port)
    Supervisor(state, children, ports, announce, lambda line: click.echo(line, err=True)).run()


def started_words(started: Started) -> str:
    """The lines that a person reads."""
    address = started.address
    lines = [f"page       {url}" for url in address.page_urls]
    for host in address.hosts:
        lines.append(f"scanners   AE title {address.ae_title}, address {host}, port {address.port}")
    if not address.is_lan:
        lines.append("only this machine is answered; --lan lets others of the local network in")
    code = started.setup_code
    if code is not None:
        lines.append(f"setup code {code[:4]} {code[4:]} makes the first user, on the page")
    if sys.stdout.isatty():
        lines.append("stop with Ctrl-C")
    return "\n".join(lines)


def _command_line(
    name: str, state: StateFolder, settings_file: Path | None, *, is_lan: bool
) -> list[str]:
    words = [sys.executable, "-m", "edge_medgemma", "clinic", name, "--state", str(state.path)]
    if settings_file is not None:
        words += ["--settings", str(settings_file)]
    return [*words, "--lan"] if is_lan and name != "worker" else words
