"""The node's process: receives, watches what arrives, and sends results out."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from edge_medgemma.runtime.clinic.addresses import LOOPBACK, server_names
from edge_medgemma.runtime.clinic.arrivals.archive_watch import watch_archives
from edge_medgemma.runtime.clinic.arrivals.arrival_clock import ArrivalClock
from edge_medgemma.runtime.clinic.arrivals.arrival_log import ArrivalLog
from edge_medgemma.runtime.clinic.arrivals.completeness import Patience
from edge_medgemma.runtime.clinic.arrivals.folder_watch import watch_folders
from edge_medgemma.runtime.clinic.arrivals.node import Node
from edge_medgemma.runtime.clinic.arrivals.node_tls import server_context
from edge_medgemma.runtime.clinic.certificates import ensure_server_certificate
from edge_medgemma.runtime.clinic.delivery.outbox import Outbox
from edge_medgemma.runtime.clinic.heartbeat import beat
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.store import Worklist

_LOGGER = logging.getLogger(__name__)

TICK_S = 0.5
ALL_ADDRESSES = "0.0.0.0"


def run_node(
    state: StateFolder,
    settings: ClinicSettings,
    *,
    is_lan: bool,
    announce: Callable[[], None] = lambda: None,
) -> None:
    """Receive until SIGTERM or SIGINT. `announce` is called once the ports are open.

    Raises:
        ResourceError: the state folder cannot be written, or a port is taken.
    """
    state.create()
    threading.excepthook = _say_in_one_line
    log = ArrivalLog()
    node = settings.node
    patience = Patience(node.released_quiet_s, node.quiet_s, node.give_up_s)
    with _stop_event() as stop, Worklist.open(state) as worklist:
        outbox = Outbox(state, settings, patience_s=0.0)
        receiver = Node(
            state,
            settings,
            log,
            on_commitment=lambda report: outbox.commitment_result(
                report.transaction_uid, report.kept, dict(report.failed)
            ),
        )
        clock = ArrivalClock(state, worklist, log, patience, time.monotonic)
        clock.start()
        host = ALL_ADDRESSES if is_lan else LOOPBACK
        try:
            receiver.listen(host, node.port)
            if node.tls_port is not None:
                files = ensure_server_certificate(state, server_names(settings))
                receiver.listen(host, node.tls_port, server_context(files))
            announce()
            for watch in (watch_archives, watch_folders):
                threading.Thread(target=watch, args=(state, settings, stop), daemon=True).start()
            while not stop.wait(TICK_S):
                receiver.note_ended()
                clock.tick()
                _send_due(outbox)
                beat(state, "node")
        finally:
            outbox.close()
            receiver.close()
            receiver.note_ended()
            clock.tick()


def _say_in_one_line(error: threading.ExceptHookArgs) -> None:
    """pynetdicom's threads end in what peers make them raise; a traceback would hold what was sent."""
    _LOGGER.warning("a connection was ended: %s", error.exc_type.__name__)


def _send_due(outbox: Outbox) -> None:
    """Send what is due; receiving goes on whatever is wrong with sending."""
    try:
        outbox.run_once()
    except Exception as error:  # noqa: BLE001 it would end the node, and with it all that comes in
        _LOGGER.error("results are not sent now: %s", type(error).__name__)


@contextlib.contextmanager
def _stop_event() -> Iterator[threading.Event]:
    """Set by SIGTERM or SIGINT."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
