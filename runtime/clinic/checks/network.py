"""Echoes (C-ECHO) to the box's own node and to every peer, and whether a peer has called the box."""

from collections.abc import Iterator
from dataclasses import replace

from edge_medgemma.runtime.clinic.addresses import LOOPBACK, clinic_address
from edge_medgemma.runtime.clinic.arrivals.recent import recent_associations, shown_title
from edge_medgemma.runtime.clinic.association import Offer, associated
from edge_medgemma.runtime.clinic.checks.line import CheckLine, fail, ok, warn
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Peer
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import PeerError, SettingsError

_VERIFICATION = Offer("1.2.840.10008.1.1", ("1.2.840.10008.1.2",))
ECHO_TIMEOUT_S = 10.0


def echo(state: StateFolder, settings: ClinicSettings, peer: Peer) -> None:
    """One C-ECHO.

    Raises:
        PeerError: it is away, refuses, or answers with a failure.
        SettingsError: it wants TLS and this box has no certificate.
    """
    with associated(
        state, settings, peer, [_VERIFICATION], answer_timeout_s=ECHO_TIMEOUT_S
    ) as association:
        status = association.send_c_echo().get("Status")
    if status != 0x0000:
        shown = "no answer" if status is None else f"status {status:04X}"
        raise PeerError(f"'{peer.name}' lets us in and does not answer an echo ({shown})")


def check_own_node(state: StateFolder, settings: ClinicSettings) -> Iterator[CheckLine]:
    """Whether the box answers as a scanner would find it."""
    node = settings.node
    # As one of those that are let in, where the settings name them
    caller = replace(settings, node=replace(node, ae_title=(*node.senders, node.ae_title)[0]))
    ports = [("echo", node.port, False)]
    if node.tls_port is not None:
        ports.append(("echo_tls", node.tls_port, True))
    for name, port, is_tls in ports:
        us = Peer("this-box", node.ae_title, LOOPBACK, port, tls=is_tls)
        try:
            echo(state, caller, us)
        except (PeerError, SettingsError) as error:
            advice = "see whether the box runs: journalctl -u edge-medgemma-clinic"
            yield fail(name, f"the box does not answer a scanner on port {port}: {error}", advice)
        else:
            yield ok(name, f"the box answers a scanner on port {port}")


def check_peers(
    state: StateFolder, settings: ClinicSettings, *, is_lan: bool
) -> Iterator[CheckLine]:
    """Whether every peer answers us, and whether it has called us."""
    for peer in settings.peers:
        name = f"peer_{peer.name}"
        try:
            echo(state, settings, peer)
        except (PeerError, SettingsError) as error:
            yield fail(name, str(error), "results wait, and are sent when it answers")
        else:
            yield ok(name, f"'{peer.name}' answers")
        yield _called_back(state, settings, peer, is_lan=is_lan)


def _called_back(
    state: StateFolder, settings: ClinicSettings, peer: Peer, *, is_lan: bool
) -> CheckLine:
    """A peer cannot be made to call: what it did last is all that is known."""
    name = f"peer_{peer.name}_back"
    title = shown_title(peer.ae_title)
    last = next((one for one in recent_associations(state) if one.calling_ae_title == title), None)
    if last is not None:
        return ok(name, f"'{peer.name}' called this box last at {last.at} UTC")
    address = clinic_address(settings, is_lan=is_lan)
    return warn(
        name,
        f"'{peer.name}' has not called this box, which cannot be tested from here",
        f"there, press its echo or test button for AE title {address.ae_title}, address "
        f"{address.hosts[0]}, port {address.port}",
    )
