"""The DICOM node: receives by C-STORE, answers C-ECHO, takes reports of storage commitment."""

import ipaddress
import logging
import ssl
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.transport import AddressInformation

from edge_medgemma.runtime.clinic.arrival_record import note_sending
from edge_medgemma.runtime.clinic.arrivals.admission import Caller, refusal, rejection
from edge_medgemma.runtime.clinic.arrivals.arrival_log import ArrivalLog
from edge_medgemma.runtime.clinic.arrivals.association_server import (
    FIRST_BYTE_TIMEOUT_S,
    PatientServer,
)
from edge_medgemma.runtime.clinic.arrivals.contexts import (
    is_commitment_report,
    supported_contexts,
    wants_storage,
)
from edge_medgemma.runtime.clinic.arrivals.receiving import ReceivedFile, receive_to
from edge_medgemma.runtime.clinic.arrivals.recent import Outcome, shown_title
from edge_medgemma.runtime.clinic.arrivals.space import Space
from edge_medgemma.runtime.clinic.arrivals.spool import Announced, OtherObjectError, Spool
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import ResourceError, ScanError

_LOGGER = logging.getLogger(__name__)

MAX_PDU_BYTES = 131072
"""dcmtk sends no larger; with pynetdicom's 16382 half as many images come in a second."""

NETWORK_TIMEOUT_S = 120.0
"""A sender that says nothing for so long is let go: slow scanners pause between two images."""

_SUCCESS, _OUT_OF_RESOURCES, _OTHER_CLASS, _NOT_UNDERSTOOD, _FAILURE = (
    0x0000, 0xA700, 0xA900, 0xC000, 0x0110,
)  # fmt: skip
"""Statuses of a C-STORE, PS3.4 B.2.3."""

_NO_SUCH_ACTION = 0x0123
"""PS3.7 C: this box takes no responsibility for keeping a scanner's images."""


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """What an archive says about results that it was sent (PS3.4 J.3.3)."""

    transaction_uid: str
    kept: tuple[str, ...]
    """SOP instance UIDs."""
    failed: tuple[tuple[str, int], ...]
    """SOP instance UIDs and failure reasons (0008,1197)."""


OnCommitment = Callable[[CommitmentReport], object]


class Node:
    """The ports of the DICOM node and what comes in through them."""

    def __init__(
        self,
        state: StateFolder,
        settings: ClinicSettings,
        log: ArrivalLog,
        *,
        on_commitment: OnCommitment | None = None,
    ) -> None:
        """Nothing is opened before `listen`."""
        self._state, self._settings, self._log = state, settings, log
        self._spool = Spool(state)
        self._space = Space(state, settings.node.reserve_gb)
        self._on_commitment = on_commitment
        self._servers: list[PatientServer] = []
        quieten()
        receive_to(state.incoming, self._space)
        self._entity = AE(settings.node.ae_title)
        self._entity.maximum_pdu_size = MAX_PDU_BYTES
        self._entity.maximum_associations = 10**6  # `refusal` decides
        self._entity.acse_timeout = FIRST_BYTE_TIMEOUT_S
        self._entity.dimse_timeout = self._entity.network_timeout = NETWORK_TIMEOUT_S

    def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Open a port and serve it in threads; the port, for one that was 0.

        Raises:
            ResourceError: the port is taken or not allowed.
        """
        try:
            server = self._entity.make_server(
                (host, port),
                contexts=supported_contexts(),
                ssl_context=tls,
                evt_handlers=[
                    (evt.EVT_REQUESTED, self._on_requested),
                    (evt.EVT_C_STORE, self._on_store),
                    (evt.EVT_C_ECHO, lambda event: _SUCCESS),
                    (evt.EVT_N_EVENT_REPORT, self._on_report),
                    (evt.EVT_N_ACTION, lambda event: (_NO_SUCH_ACTION, None)),
                    (evt.EVT_CONN_CLOSE, _remove_torn),
                ],
                server_class=PatientServer,
                on_tls_failure=self._on_tls_failure,
            )
        except OSError as error:
            raise ResourceError(
                f"could not open port {port}: {error.strerror}; another program has it, or ports "
                "below 1024 need a right: choose another in [node] of the settings"
            ) from error
        threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True).start()
        self._servers.append(server)
        return int(server.server_address[1])

    def note_ended(self) -> None:
        """Tell the log which associations are over; call it often."""
        for association in self._log.open_handles():
            if not association.is_alive():  # type: ignore[attr-defined]
                self._log.end(association, is_released=association.is_released)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the ports, then abort what is open."""
        for server in self._servers:
            server.shutdown()
        self._servers.clear()
        self._entity.shutdown()

    def _on_requested(self, event: Any) -> None:
        """Let an association in or refuse it, before pynetdicom negotiates."""
        try:
            self._admit(event.assoc)
        except Exception as error:  # noqa: BLE001 pynetdicom would go on and let it in
            _LOGGER.error("a request was not understood: %s", type(error).__name__)
            event.assoc.acse.send_reject(1, 1, 1)
            event.assoc.kill()

    def _admit(self, association: Any) -> None:
        association._server.begun(association)
        self.note_ended()  # else what ended since the last tick counts against the limits
        request = association.requestor.primitive
        address = _address(association.requestor.address_info)
        calling, called = request.calling_ae_title.strip(" "), request.called_ae_title.strip(" ")
        storing = wants_storage(request.presentation_context_definition_list)
        caller = Caller(
            calling_ae_title=calling,
            called_ae_title=called,
            is_this_machine=ipaddress.ip_address(address).is_loopback,
            has_certificate=association._server.ssl_context is not None,
            wants_storage=storing,
            open_associations=self._log.open_count(),
            open_from_address=self._log.open_count(address),
            has_room=self._has_room(),
        )
        reason = refusal(caller, self._settings)
        if reason is None:
            is_report = is_commitment_report(request.presentation_context_definition_list)
            is_echo = not storing and not is_report
            self._log.begin(
                association, calling, called, address, is_echo=is_echo, is_report=is_report
            )
            return
        self._log.refuse(calling, called, address, reason)
        association.acse.send_reject(*rejection(reason))
        association.kill()

    def _on_store(self, event: Any) -> int:
        """Keep one object; the status that its sender is told. Nothing may be raised from here."""
        association, request = event.assoc, event.request
        received: ReceivedFile | None = request._dataset_file
        sender = shown_title(association.requestor.ae_title)
        try:
            if received is None:
                raise ScanError("not kept: a request without an object")
            received.close()
            if not received.is_whole:
                raise ResourceError("no room for the object")
            announced = Announced(
                str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
            )
            arrival = self._spool.accept(Path(received.name), sender, announced)
            if self._log.note(association, arrival):
                note_sending(self._state, arrival.study_key, sender)
            return _SUCCESS
        except ResourceError:
            self._log.note_refused(association, Outcome.NO_ROOM_LEFT)
            return _OUT_OF_RESOURCES
        except OtherObjectError:
            self._log.note_refused(association, Outcome.NOT_UNDERSTOOD)
            return _OTHER_CLASS
        except ScanError:
            self._log.note_refused(association, Outcome.NOT_UNDERSTOOD)
            return _NOT_UNDERSTOOD
        except Exception as error:  # noqa: BLE001 it would be a traceback in the log, and C211
            _LOGGER.error("an object was not kept: %s", type(error).__name__)
            self._log.note_refused(association, Outcome.NOT_UNDERSTOOD)
            return _FAILURE

    def _on_report(self, event: Any) -> tuple[int, None]:
        """An archive reports about results that it was sent."""
        try:
            if self._on_commitment is not None:
                self._on_commitment(_commitment(event.event_information))
            return _SUCCESS, None
        except Exception as error:  # noqa: BLE001 as above
            _LOGGER.error("a report of an archive was not noted: %s", type(error).__name__)
            return _FAILURE, None

    def _on_tls_failure(self, address: str) -> None:
        self._log.refuse("", "", address, Outcome.TLS_FAILED)

    def _has_room(self) -> bool:
        try:
            return self._space.has_room()
        except ResourceError:
            return False


def quieten() -> None:
    """Let no library of this process put values of a scan, or what a peer sent, into the log."""
    for name in ("pynetdicom", "pydicom"):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.handlers = [logging.NullHandler()]
        logger.setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")


def _address(info: AddressInformation) -> str:
    """IP address of a peer, an IPv4 one in the same words over IPv6."""
    address = ipaddress.ip_address(info.address.split("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _remove_torn(event: Any) -> None:
    """Delete the part of an object that was coming when the connection broke."""
    message = event.assoc.dimse.message
    received = getattr(message, "_data_set_file", None)
    if isinstance(received, ReceivedFile):
        received.close()
        Path(received.name).unlink(missing_ok=True)


def _commitment(information: Any) -> CommitmentReport:
    kept = information.get("ReferencedSOPSequence") or ()
    failed = information.get("FailedSOPSequence") or ()
    return CommitmentReport(
        transaction_uid=str(information.TransactionUID),
        kept=tuple(str(item.ReferencedSOPInstanceUID) for item in kept),
        failed=tuple(
            (str(item.ReferencedSOPInstanceUID), int(item.FailureReason)) for item in failed
        ),
    )
