"""A DICOM archive of the test's own, on pynetdicom, that fails in the ways that archives do."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from support.clinic_peers import free_port

from edge_medgemma.runtime.clinic.settings import Peer, ResultKind

ALL_CLASSES = (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    EncapsulatedPDFStorage,
)


@dataclass
class ArchivePeer:
    """What it got and what it was asked; `statuses` are those of the next C-STORE requests."""

    port: int
    stored: list[Dataset] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """Transaction UID and SOP Instance UIDs of each request for commitment."""
    before_store: Callable[[], None] = lambda: None
    """Called at each C-STORE request."""
    answers_at_once: bool = False
    """Whether it reports over the association of the request."""

    def peer(self, **changes: Any) -> Peer:
        """Its entry in the settings."""
        values = {"results": (ResultKind.SR, ResultKind.KOS, ResultKind.SC), **changes}
        return Peer("archive", "ARCHIVE", "127.0.0.1", self.port, **values)

    @property
    def uids(self) -> list[str]:
        return [str(one.SOPInstanceUID) for one in self.stored]

    def on_store(self, event: Any) -> int:
        self.before_store()
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == 0x0000:
            self.stored.append(event.dataset)
        return status

    def on_action(self, event: Any) -> tuple[int, None]:
        request = event.action_information
        uids = tuple(str(one.ReferencedSOPInstanceUID) for one in request.ReferencedSOPSequence)
        self.asked.append((str(request.TransactionUID), uids))
        if self.answers_at_once:
            threading.Timer(0.1, self._report, (event.assoc, request)).start()
        return 0x0000, None

    def _report(self, association: Any, request: Dataset) -> None:
        association.send_n_event_report(
            request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )


@contextlib.contextmanager
def archive(
    port: int | None = None,
    classes: Sequence[str] = ALL_CLASSES,
    has_commitment: bool = True,
    senders: Sequence[str] = (),
) -> Iterator[ArchivePeer]:
    """A running archive that is closed with the block."""
    found = ArchivePeer(port or free_port())
    ae = AE("ARCHIVE")
    for sop_class in classes:
        ae.add_supported_context(sop_class)
    if has_commitment:
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    ae.require_calling_aet = list(senders)
    ae.require_called_aet = True
    handlers = [(evt.EVT_C_STORE, found.on_store), (evt.EVT_N_ACTION, found.on_action)]
    server = ae.start_server(("127.0.0.1", found.port), block=False, evt_handlers=handlers)
    try:
        yield found
    finally:
        server.shutdown()
