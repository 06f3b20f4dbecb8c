"""Calling a peer by DICOM: an association, and in plain words why there is none."""

import contextlib
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge_medgemma.runtime.clinic.certificates import server_files
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Peer
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import PeerError, SettingsError

CONNECT_TIMEOUT_S = 5.0
ACSE_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
MAX_PDU_BYTES = 131072
"""dcmtk sends no larger; pynetdicom's own 16382 halves the rate."""

_REJECTIONS = {
    (1, 3): "it does not know our AE title '{ours}'; enter it in its table of AE titles",
    (1, 7): "it is not called '{theirs}'; correct ae_title in the settings, case matters",
    (1, 2): "it does not speak DICOM of this kind",
    (3, 1): "it is busy; try again later",
    (3, 2): "it has too many connections; try again later",
}
"""Source and reason of PS3.8 table 9-21, as far as a person can do something about them."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One presentation context that is proposed."""

    sop_class: str
    transfer_syntaxes: tuple[str, ...]
    is_received: bool = False
    """The peer sends such objects over this association (C-GET): SCP role is asked for."""


@contextlib.contextmanager
def associated(
    state: StateFolder,
    settings: ClinicSettings,
    peer: Peer,
    offers: Sequence[Offer],
    *,
    on_store: Callable[[Any], int] | None = None,
    answer_timeout_s: float = ANSWER_TIMEOUT_S,
) -> Iterator[Any]:
    """An open `pynetdicom.association.Association` with a peer, released at the end of the block.

    Args:
        state: whose certificate is shown to a peer with `tls`
        settings: whose AE title is ours
        peer: who is called
        offers: what is proposed; at least one must be accepted
        on_store: takes pynetdicom's event of each C-STORE that a C-GET brings, gives its status
        answer_timeout_s: longest wait for one message of the peer

    Raises:
        PeerError: it is away, refuses, or accepts nothing of what is offered. An error of the block
            goes on as it is, after an abort.
        SettingsError: it wants TLS and this box has no certificate.
    """
    from pynetdicom import AE, evt

    ae = AE(ae_title=settings.node.ae_title)
    ae.connection_timeout = CONNECT_TIMEOUT_S
    ae.acse_timeout = ACSE_TIMEOUT_S
    ae.dimse_timeout = answer_timeout_s
    ae.network_timeout = answer_timeout_s
    contexts, roles = _negotiated(offers)
    _log_no_identifiers()
    association = ae.associate(
        peer.host,
        peer.port,
        contexts=contexts,
        ae_title=peer.ae_title,
        max_pdu=MAX_PDU_BYTES,
        ext_neg=roles,
        tls_args=(_tls_context(state), peer.host) if peer.tls else None,
        evt_handlers=[(evt.EVT_C_STORE, on_store)] if on_store is not None else [],
    )
    if not association.is_established:
        raise PeerError(f"{called(peer)} {_why_not(settings, peer, association)}")
    try:
        yield association
    except BaseException:
        association.abort()
        raise
    if association.is_established:
        association.release()


def called(peer: Peer) -> str:
    """A peer in a sentence."""
    return f"'{peer.name}' ({peer.host}:{peer.port})"


def _negotiated(offers: Sequence[Offer]) -> tuple[list[Any], list[Any]]:
    """Presentation contexts, and the roles of what is received."""
    from pynetdicom import build_context, build_role

    contexts = [build_context(offer.sop_class, list(offer.transfer_syntaxes)) for offer in offers]
    received = dict.fromkeys(offer.sop_class for offer in offers if offer.is_received)
    return contexts, [build_role(sop_class, scp_role=True) for sop_class in received]


def _tls_context(state: StateFolder) -> ssl.SSLContext:
    """Believes the system's authorities and the box's own, and shows the box's certificate.

    Raises:
        SettingsError: the box has no certificate yet.
    """
    files = server_files(state)
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(files.authority)
        context.load_cert_chain(files.certificate, files.key)
    except OSError as error:
        raise SettingsError(
            "a peer wants TLS and this box has no certificate; run 'edge-medgemma clinic certificate'"
        ) from error
    return context


def _log_no_identifiers() -> None:
    """Identifiers are patients: they stay out of every log, whoever turns logging on."""
    from pynetdicom import _config

    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False


def _why_not(settings: ClinicSettings, peer: Peer, association: Any) -> str:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        words = _REJECTIONS.get((answer.result_source, answer.diagnostic))
        if words is None:
            words = f"reason {answer.result_source}/{answer.diagnostic} of DICOM PS3.8 table 9-21"
        return f"refuses: {words.format(ours=settings.node.ae_title, theirs=peer.ae_title)}"
    if association.rejected_contexts:
        return "offers nothing of what is asked of it; ask its maker for query and retrieve"
    if association.is_aborted and answer is not None:
        return "broke the connection off; look at its log"
    secure = ", its certificate" if peer.tls else ""
    return f"is away: no answer; check that it is on{secure}, and its host and port in the settings"
