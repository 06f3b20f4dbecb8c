"""Sending objects to an archive, and asking it to confirm that it keeps them."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from edge_medgemma.runtime.clinic.certificates import server_files
from edge_medgemma.runtime.clinic.delivery.manifest import ObjectEntry
from edge_medgemma.runtime.clinic.delivery.problems import (
    DeliveryProblem,
    DestinationError,
    ResultRefusedError,
)
from edge_medgemma.runtime.clinic.settings import Peer
from edge_medgemma.runtime.clinic.state_folder import StateFolder

CONNECT_S = 10.0
ANSWER_S = 60.0
MAX_PDU_BYTES = 131072

SUBSTITUTES = {str(Comprehensive3DSRStorage): str(ComprehensiveSRStorage)}
"""SOP class to the older one that holds the same content; many archives know only that."""

_DUPLICATE = 0x0111
"""PS3.7 C.5.3: it has this object already, from a try whose answer was lost."""
_WARNINGS = range(0xB000, 0xC000)
"""PS3.4 B.2.3: stored, with elements coerced or left out."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls."""

    state: StateFolder
    """Whose certificates are shown to peers with TLS."""
    ae_title: str


@dataclass(frozen=True, slots=True)
class Commitment:
    """What an archive says about a request for storage commitment. PS3.4 J.3.3"""

    transaction_uid: str
    confirmed: tuple[str, ...]
    """SOP Instance UIDs."""
    failed: Mapping[str, int]
    """SOP Instance UID to failure reason."""


def store(
    caller: Caller,
    peer: Peer,
    folder: Path,
    objects: Sequence[ObjectEntry],
    on_stored: Callable[[str, str], None],
) -> None:
    """C-STORE objects in order over one association.

    Args:
        caller: of the box
        peer: the archive
        folder: that holds the files
        objects: to be sent
        on_stored: takes the SOP Instance UID and the SOP class of each as soon as it is stored

    Raises:
        DestinationError: the archive is away, rejects the association or broke off.
        ResultRefusedError: it refused at least one object; all others were sent.
    """
    from pynetdicom import build_context

    classes = dict.fromkeys(one.sop_class_uid for one in objects)
    classes |= dict.fromkeys(SUBSTITUTES[one] for one in [*classes] if one in SUBSTITUTES)
    contexts = [
        build_context(one, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]) for one in classes
    ]
    problem: DeliveryProblem | None = None
    with _association(caller, peer, contexts, []) as association:
        accepted = {str(one.abstract_syntax) for one in association.accepted_contexts}
        for one in objects:
            sop_class = next(
                (
                    c
                    for c in (one.sop_class_uid, SUBSTITUTES.get(one.sop_class_uid))
                    if c in accepted
                ),
                None,
            )
            if sop_class is None:
                problem = DeliveryProblem.KIND_REFUSED
                continue
            status = association.send_c_store(_as_class(dcmread(folder / one.file), sop_class))
            if "Status" not in status:
                raise DestinationError(DeliveryProblem.BROKE_OFF)
            if status.Status in (0x0000, _DUPLICATE) or status.Status in _WARNINGS:
                on_stored(one.sop_instance_uid, sop_class)
            else:
                problem = DeliveryProblem.OBJECT_REFUSED
    if problem is not None:
        raise ResultRefusedError(problem)


def ask_commitment(
    caller: Caller,
    peer: Peer,
    transaction_uid: str,
    objects: Mapping[str, str],
    wait_s: float,
) -> Commitment | None:
    """Ask an archive to confirm that it keeps objects.

    Args:
        caller: of the box
        peer: the archive
        transaction_uid: new for each request
        objects: SOP Instance UID to the SOP class that it was stored as
        wait_s: for an answer over the same association; most archives call back over one of their own

    Returns:
        The answer where it came over the same association, else None: it will come to our own node.

    Raises:
        DestinationError: the archive is away, rejects the association or broke off.
        ResultRefusedError: it does not offer storage commitment, or refuses the request.
    """
    from pynetdicom import build_context, evt
    from pynetdicom.sop_class import (
        StorageCommitmentPushModel,
        StorageCommitmentPushModelInstance,
    )

    answers: list[Commitment] = []
    came = threading.Event()

    def take(event: Any) -> tuple[int, None]:
        answers.append(commitment_of(event.event_information))
        came.set()
        return 0x0000, None

    contexts = [build_context(StorageCommitmentPushModel)]
    handlers = [(evt.EVT_N_EVENT_REPORT, take)]
    with _association(caller, peer, contexts, handlers) as association:
        status, _ = association.send_n_action(
            _commitment_request(transaction_uid, objects),
            1,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )
        if "Status" not in status:
            raise DestinationError(DeliveryProblem.BROKE_OFF)
        if status.Status != 0x0000:
            raise ResultRefusedError(DeliveryProblem.OBJECT_REFUSED)
        came.wait(wait_s)
    mine = [one for one in answers if one.transaction_uid == transaction_uid]
    return mine[0] if mine else None


def commitment_of(information: Dataset) -> Commitment:
    """Event Information of an N-EVENT-REPORT of storage commitment."""
    confirmed = information.get("ReferencedSOPSequence") or []
    failed = information.get("FailedSOPSequence") or []
    return Commitment(
        transaction_uid=str(information.get("TransactionUID", "")),
        confirmed=tuple(str(one.get("ReferencedSOPInstanceUID", "")) for one in confirmed),
        failed={
            str(one.get("ReferencedSOPInstanceUID", "")): int(one.get("FailureReason") or 0x0110)
            for one in failed
        },
    )


def _commitment_request(transaction_uid: str, objects: Mapping[str, str]) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = []
    for uid, sop_class in objects.items():
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = uid
        request.ReferencedSOPSequence.append(item)
    return request


def _as_class(dataset: Dataset, sop_class: str) -> Dataset:
    dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    return dataset


@contextmanager
def _association(
    caller: Caller, peer: Peer, contexts: list[Any], handlers: list[Any]
) -> Iterator[Any]:
    """An association with a peer, released with the block.

    Raises:
        DestinationError: there is none.
        ResultRefusedError: the peer takes none of the contexts.
    """
    from pynetdicom import AE, _config

    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False  # names of patients
    ae = AE(ae_title=caller.ae_title)
    ae.connection_timeout = ae.acse_timeout = CONNECT_S
    ae.dimse_timeout = ae.network_timeout = ANSWER_S
    tls = (_tls_context(caller.state), peer.host) if peer.tls else None
    association = ae.associate(
        peer.host,
        peer.port,
        contexts,
        peer.ae_title,
        max_pdu=MAX_PDU_BYTES,
        evt_handlers=handlers,
        tls_args=tls,
    )
    if not association.is_established:
        if association.is_rejected:
            raise DestinationError(DeliveryProblem.REJECTED)
        if association.rejected_contexts:  # it answered, and takes none of what is offered
            raise ResultRefusedError(DeliveryProblem.KIND_REFUSED)
        raise DestinationError(DeliveryProblem.UNREACHABLE)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _tls_context(state: StateFolder) -> ssl.SSLContext:
    """Ours shown, the peer's believed where the box's own authority signed it.

    Raises:
        DestinationError: the certificates are missing or damaged.
    """
    files = server_files(state)
    try:
        context = ssl.create_default_context(cafile=str(files.authority))
        context.load_cert_chain(str(files.certificate), str(files.key))
    except (OSError, ssl.SSLError):
        raise DestinationError(DeliveryProblem.TLS_FAILED) from None
    context.check_hostname = (
        False  # archives are named by addresses that change; both show certificates
    )
    return context
