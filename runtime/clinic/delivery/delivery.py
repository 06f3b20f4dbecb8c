"""The next steps of bringing one result to one destination; each is noted as soon as it is done."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_medgemma.runtime.clinic.delivery.health_record import (
    post_bundle,
    put_files,
    send_message,
)
from edge_medgemma.runtime.clinic.delivery.manifest import ORU_FILE, Manifest, bundle_file
from edge_medgemma.runtime.clinic.delivery.problems import DeliveryProblem, ResultRefusedError
from edge_medgemma.runtime.clinic.delivery.receipts import MAX_TRANSACTIONS, Receipt
from edge_medgemma.runtime.clinic.delivery.store_scu import (
    Caller,
    Commitment,
    ask_commitment,
    store,
)
from edge_medgemma.runtime.clinic.settings import HealthRecord, Peer
from edge_medgemma.runtime.clinic.worklist.audit import utc_now
from edge_medgemma.runtime.errors import DeliveryError


@dataclass(frozen=True, slots=True)
class Delivery:
    """One result on its way to one destination."""

    caller: Caller
    folder: Path
    manifest: Manifest
    read: Callable[[], Receipt]
    change: Callable[[Callable[[Receipt], Receipt]], Receipt]
    """Writes what the function makes of the receipt; returns it."""
    take: Callable[[Commitment], None]
    """Takes an answer to a request for storage commitment."""
    answer_wait_s: float
    """For that answer, before the association of the request is released."""
    record_answer_s: float
    """Longest wait for an answer of a health-record system."""


def send(delivery: Delivery, to: Peer | HealthRecord) -> bool:
    """Do what is left to be done.

    Returns:
        Whether a confirmation is still to come.

    Raises:
        DestinationError: the destination is away or fails as a whole.
        ResultRefusedError: it refuses something of this result.
        DeliveryError: a file was altered since it was made.
    """
    if isinstance(to, Peer):
        return _send_objects(delivery, to)
    _tell(delivery, to)
    _finish(delivery)
    return False


def _send_objects(delivery: Delivery, peer: Peer) -> bool:
    wanted = [one for one in delivery.manifest.objects if one.kind in peer.results]
    stored = delivery.read().stored
    missing = [one for one in wanted if one.sop_instance_uid not in stored]
    for one in missing:
        _checked(delivery, one.file, one.sha256)
    if missing:
        store(delivery.caller, peer, delivery.folder, missing, lambda *one: _note(delivery, *one))
    receipt = delivery.read()
    is_confirmed = set(receipt.confirmed) >= {one.sop_instance_uid for one in wanted}
    if peer.commitment and not receipt.has_no_commitment and not is_confirmed:
        return _ask(delivery, peer)
    _finish(delivery)
    return False


def _ask(delivery: Delivery, peer: Peer) -> bool:
    """Ask for storage commitment; the number of the request is kept before it leaves."""
    from pydicom.uid import generate_uid

    transaction_uid = str(generate_uid(prefix=None))
    receipt = delivery.change(
        lambda one: replace(
            one, transactions=(*one.transactions, transaction_uid)[-MAX_TRANSACTIONS:]
        )
    )
    try:
        answer = ask_commitment(
            delivery.caller, peer, transaction_uid, receipt.stored, delivery.answer_wait_s
        )
    except ResultRefusedError as error:
        if error.problem is not DeliveryProblem.KIND_REFUSED:
            raise
        delivery.change(lambda one: replace(one, has_no_commitment=True))
        _finish(delivery)
        return False
    if answer is not None:
        delivery.take(answer)
    asked, receipt = receipt, delivery.read()
    is_refused = len(receipt.stored) < len(asked.stored)
    if receipt.delivered_at or is_refused:  # what is not kept is sent again
        return False
    is_repeated = len(receipt.transactions) > 1
    problem = DeliveryProblem.NOT_CONFIRMED if is_repeated else None
    delivery.change(lambda one: one if one.delivered_at else replace(one, problem=problem))
    return True


def _tell(delivery: Delivery, record: HealthRecord) -> None:
    """A health-record system, by each of the ways that its entry names."""
    stored = delivery.read().stored
    if record.fhir_url and "fhir" not in stored:
        bundle = _document(delivery, bundle_file(record.name))
        post_bundle(record.fhir_url, bundle, delivery.record_answer_s)
        _note(delivery, "fhir", "")
    if record.hl7_host and record.hl7_port and "hl7" not in stored:
        message = _document(delivery, ORU_FILE)
        send_message(record.hl7_host, record.hl7_port, message, delivery.record_answer_s)
        _note(delivery, "hl7", "")
    if record.folder and "folder" not in stored:
        bundle, message = (
            _document(delivery, bundle_file(record.name)),
            _document(delivery, ORU_FILE),
        )
        files = {"bundle.json": bundle, ORU_FILE: message}
        put_files(Path(record.folder), delivery.folder.name, files)
        _note(delivery, "folder", "")


def _document(delivery: Delivery, name: str) -> bytes:
    sha256 = delivery.manifest.documents.get(name)
    if sha256 is None:
        raise DeliveryError(f"'{name}' was not made for this result")
    return _checked(delivery, name, sha256)


def _checked(delivery: Delivery, name: str, sha256: str) -> bytes:
    """Content of a file as it was made.

    Raises:
        DeliveryError: it is missing or altered: nothing else is sent in its place.
    """
    try:
        data = (delivery.folder / name).read_bytes()
    except OSError as error:
        raise DeliveryError(f"'{name}' cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DeliveryError(f"'{name}' was altered")
    return data


def _note(delivery: Delivery, name: str, sop_class: str) -> None:
    delivery.change(
        lambda one: replace(one, stored={**one.stored, name: sop_class}, attempts=0, problem=None)
    )


def _finish(delivery: Delivery) -> None:
    delivery.change(
        lambda one: replace(
            one, delivered_at=one.delivered_at or utc_now(), attempts=0, problem=None
        )
    )
