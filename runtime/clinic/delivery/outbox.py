"""Brings every result to every destination, however long one is away, and has it confirmed."""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from edge_medgemma.runtime.clinic.delivery.back_off import LONGEST_S, BackOff
from edge_medgemma.runtime.clinic.delivery.delivery import Delivery, send
from edge_medgemma.runtime.clinic.delivery.health_record import ANSWER_S
from edge_medgemma.runtime.clinic.delivery.lock import outbox_lock
from edge_medgemma.runtime.clinic.delivery.manifest import (
    MANIFEST_FILE,
    RECEIPT_FOLDER,
    Manifest,
    OutboxEntry,
    entries,
    latest_entries,
    read_manifest,
    receivers,
)
from edge_medgemma.runtime.clinic.delivery.problems import (
    DeliveryProblem,
    DestinationError,
    ResultRefusedError,
)
from edge_medgemma.runtime.clinic.delivery.receipts import Receipt, read_receipt, write_receipt
from edge_medgemma.runtime.clinic.delivery.store_scu import Caller, Commitment
from edge_medgemma.runtime.clinic.settings import ClinicSettings, HealthRecord, Peer
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import DeliveryError, ResourceError, WorklistError

_LOGGER = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""`run_once` returns after so long, although a destination may still keep its thread waiting."""
CLOSE_S = 5.0
ANSWER_WAIT_S = 2.0
"""For a commitment over the association of its request; most archives call back over one of their own."""
ASK_AGAIN_S = 600.0
"""An archive that has not confirmed for so long is asked again, then after twice as long, up to an hour."""


@dataclass(slots=True)
class Outbox:
    """Sender of the node's process; what was sent stands in receipts, and nothing only here."""

    state: StateFolder
    settings: ClinicSettings
    clock: Callable[[], float] = time.monotonic
    patience_s: float = PATIENCE_S
    answer_wait_s: float = ANSWER_WAIT_S
    record_answer_s: float = ANSWER_S
    _back_off: BackOff = field(init=False)
    _threads: dict[str, threading.Thread] = field(default_factory=dict, init=False)
    _manifests: dict[tuple[str, int, int], Manifest] = field(default_factory=dict, init=False)
    _finished: dict[str, int] = field(default_factory=dict, init=False)
    """Folder -> time of change of its receipts, when every destination had it."""
    _receipt_lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _is_closed: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        """Nothing has failed yet."""
        self._back_off = BackOff(self.clock)

    def run_once(self) -> None:
        """Try what is due, each destination in a thread of its own, so that none waits for another."""
        open_entries = self._open_entries()
        self._note_delivered(open_entries)
        due = [
            (name, to)
            for name, to in receivers(self.settings).items()
            if not self._is_busy(name)
            and self._back_off.is_due(name)
            and self._owed(name, open_entries)
        ]
        for name, to in due:
            thread = threading.Thread(
                target=self._serve, args=(name, to), name=f"outbox-{name}", daemon=True
            )
            self._threads[name] = thread
            thread.start()
        end = time.monotonic() + self.patience_s
        for name, _ in due:
            self._threads[name].join(max(0.0, end - time.monotonic()))
        if due:
            self._note_delivered(open_entries)

    def close(self) -> None:
        """Begin nothing new, and wait a little for what is on its way."""
        self._is_closed.set()
        end = time.monotonic() + CLOSE_S
        for thread in list(self._threads.values()):
            thread.join(max(0.0, end - time.monotonic()))

    def commitment_result(
        self, transaction_uid: str, confirmed: tuple[str, ...], failed: Mapping[str, int]
    ) -> bool:
        """An archive's answer to a request for storage commitment.

        Args:
            transaction_uid: of the request; one that is not ours changes nothing
            confirmed: SOP Instance UIDs that it keeps
            failed: SOP Instance UID to the reason why it does not; they are sent again

        Returns:
            Whether it was the answer to a request of ours.
        """
        answer = Commitment(transaction_uid, confirmed, failed)
        for entry in entries(self.state):
            for name in receivers(self.settings):
                receipt = read_receipt(entry.folder, name)
                if receipt is not None and transaction_uid in receipt.transactions:
                    self._take(entry, name, answer)
                    return True
        return False

    def _is_busy(self, name: str) -> bool:
        return name in self._threads and self._threads[name].is_alive()

    def _open_entries(self) -> list[OutboxEntry]:
        """The newest result of each study, without those that everybody has."""
        latest = latest_entries(self.state)
        return [entry for entry in latest if not self._is_finished(entry)]

    def _owed(self, name: str, open_entries: list[OutboxEntry]) -> list[OutboxEntry]:
        """Results of which the destination lacks something, the most urgent and oldest first."""
        owed = []
        for entry in open_entries:
            if not self._back_off.is_due(_key(entry, name)):
                continue
            manifest = self._manifest(entry)
            if manifest is None or name not in manifest.destinations:
                continue
            receipt = read_receipt(entry.folder, name)
            if receipt is None or not receipt.delivered_at:
                owed.append((manifest.urgency.rank, manifest.created_at, entry))
        return [entry for _, _, entry in sorted(owed, key=lambda one: one[:2])]

    def _manifest(self, entry: OutboxEntry) -> Manifest | None:
        """The manifest, read once unless it was made anew."""
        try:
            found = (entry.folder / MANIFEST_FILE).stat()
            key = (entry.folder.name, found.st_ino, found.st_mtime_ns)
            if key not in self._manifests:
                self._manifests[key] = read_manifest(entry.folder)
        except (OSError, DeliveryError):  # the worker makes it again
            return None
        return self._manifests[key]

    def _serve(self, name: str, to: Peer | HealthRecord) -> None:
        """Send one destination all that is owed; nothing is raised, for this is a thread's all."""
        try:
            self._serve_owed(name, to)
        except Exception as error:  # noqa: BLE001 it would be a traceback in the log
            _LOGGER.error("delivery to '%s' failed: %s", name, type(error).__name__)
            self._back_off.failed(name)

    def _serve_owed(self, name: str, to: Peer | HealthRecord) -> None:
        """As `_serve`, until the destination fails as a whole."""
        for entry in self._owed(name, self._open_entries()):
            if self._is_closed.is_set() or not self._begin(entry, name):
                continue
            try:
                self._send(entry, name, to)
                self._back_off.went_well(name)
            except DestinationError as error:
                self._note_problem(entry, name, error.problem)
                self._back_off.failed(name)
                return
            except ResultRefusedError as error:
                self._note_problem(entry, name, error.problem)
                self._back_off.failed(_key(entry, name))
            except DeliveryError:
                self._note_problem(entry, name, DeliveryProblem.DAMAGED)
                self._back_off.failed(_key(entry, name))
            except ResourceError:  # the disk is full: receipts cannot be kept
                self._back_off.failed(name)
                return

    def _begin(self, entry: OutboxEntry, name: str) -> bool:
        """Leave a mark before anything leaves, so that a newer result knows; False where it is there."""
        with outbox_lock(self.state):
            if entry not in latest_entries(self.state):
                return False
            if read_receipt(entry.folder, name) is None:
                with self._receipt_lock, contextlib.suppress(ResourceError):
                    write_receipt(entry.folder, name, Receipt())
            return read_receipt(entry.folder, name) is not None

    def _send(self, entry: OutboxEntry, name: str, to: Peer | HealthRecord) -> None:
        manifest = self._manifest(entry)
        if manifest is None:
            raise DeliveryError("the manifest is damaged")
        delivery = Delivery(
            caller=Caller(self.state, self.settings.node.ae_title),
            folder=entry.folder,
            manifest=manifest,
            read=lambda: read_receipt(entry.folder, name) or Receipt(),
            change=lambda change: self._change(entry, name, change),
            take=lambda answer: self._take(entry, name, answer),
            answer_wait_s=self.answer_wait_s,
            record_answer_s=self.record_answer_s,
        )
        is_waiting = send(delivery, to)
        receipt = delivery.read()
        if receipt.delivered_at:
            self._back_off.went_well(_key(entry, name))
        elif is_waiting:
            asked = min(len(receipt.transactions), 8)
            self._back_off.wait(_key(entry, name), min(LONGEST_S, ASK_AGAIN_S * 2.0 ** (asked - 1)))

    def _change(
        self, entry: OutboxEntry, name: str, change: Callable[[Receipt], Receipt]
    ) -> Receipt:
        with self._receipt_lock:
            receipt = change(read_receipt(entry.folder, name) or Receipt())
            write_receipt(entry.folder, name, receipt)
            return receipt

    def _take(self, entry: OutboxEntry, name: str, answer: Commitment) -> None:
        def change(receipt: Receipt) -> Receipt:
            stored = {k: v for k, v in receipt.stored.items() if k not in answer.failed}
            confirmed = {*receipt.confirmed, *answer.confirmed} & set(stored)
            is_done = bool(stored) and not answer.failed and confirmed == set(stored)
            return replace(
                receipt,
                stored=stored,
                confirmed=tuple(sorted(confirmed)),
                problem=None if is_done else DeliveryProblem.NOT_CONFIRMED,
                delivered_at=receipt.delivered_at or (audit.utc_now() if is_done else ""),
            )

        receipt = self._change(entry, name, change)
        if answer.failed:
            self._back_off.failed(_key(entry, name))
        elif receipt.delivered_at:
            self._back_off.went_well(_key(entry, name))

    def _note_problem(self, entry: OutboxEntry, name: str, problem: DeliveryProblem) -> None:
        def change(receipt: Receipt) -> Receipt:
            return replace(receipt, attempts=receipt.attempts + 1, problem=problem)

        with contextlib.suppress(ResourceError):
            self._change(entry, name, change)

    def _note_delivered(self, open_entries: list[OutboxEntry]) -> None:
        """Tell the worklist of results that every destination has; after a kill once more."""
        known = receivers(self.settings)
        for entry in open_entries:
            manifest = self._manifest(entry)
            if manifest is None:
                continue
            names = [name for name in manifest.destinations if name in known]
            receipts = [read_receipt(entry.folder, name) for name in names]
            if names and all(one is not None and one.delivered_at for one in receipts):
                self._tell_worklist(entry)

    def _is_finished(self, entry: OutboxEntry) -> bool:
        """Whether all is delivered and nobody has asked for it again since."""
        changed_ns = self._finished.get(entry.folder.name)
        return changed_ns is not None and changed_ns == _receipts_changed_ns(entry)

    def _tell_worklist(self, entry: OutboxEntry) -> None:
        try:
            with Worklist.open(self.state) as worklist:
                worklist.delivered(entry.study_key, entry.number)
        except WorklistError:  # it was deleted
            pass
        except (ResourceError, sqlite3.Error) as error:  # told again at the next run
            _LOGGER.error("study %s: %s", entry.study_key[:8], type(error).__name__)
            return
        self._finished[entry.folder.name] = _receipts_changed_ns(entry)


def _receipts_changed_ns(entry: OutboxEntry) -> int:
    try:
        return (entry.folder / RECEIPT_FOLDER).stat().st_mtime_ns
    except OSError:
        return 0


def _key(entry: OutboxEntry, name: str) -> str:
    return f"{name}/{entry.folder.name}"
