"""Accepting connections so that nobody who is idle, slow or many keeps others out.

pynetdicom shakes hands for TLS while it accepts, gives each silent connection two polling threads and
counts it against its limit of associations. Here a connection waits in a thread that sleeps, and the
oldest silent one of an address makes way for its next.
"""

import contextlib
import select
import socket
import ssl
import threading
from functools import partial
from typing import Any

from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

HANDSHAKE_TIMEOUT_S = 5.0
FIRST_BYTE_TIMEOUT_S = 10.0
MOST_WAITING_PER_ADDRESS = 8
MOST_WAITING = 64
"""Of all addresses: each takes a thread and a descriptor."""

LARGEST_PDU_BYTES = 4 * 1024 * 1024
"""A peer may announce 4 GB; a request of 128 contexts takes less than 1 MB, data 128 kB."""

SEND_TIMEOUT_S = 30.0


class SharedContexts(list[PresentationContext]):
    """Presentation contexts that each association reads: copying all takes 60 ms an association."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedContexts":
        """Itself: negotiation changes none of them."""
        return self


class BoundedRequestHandler(RequestHandler):  # type: ignore[misc] # pynetdicom has no types
    """Makes associations that read no more of a PDU than there may be."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        transport = association.dul.socket
        assert transport is not None
        # an attribute of the object: pynetdicom makes it by name
        setattr(transport, "recv", partial(_receive, transport))  # noqa: B010
        return association


class PatientServer(ThreadedAssociationServer):  # type: ignore[misc] # as above
    """An association server for a network of which no peer is trusted."""

    def __init__(self, *arguments: Any, on_tls_failure: Any = None, **options: Any) -> None:
        """As `ThreadedAssociationServer`; `on_tls_failure` is called with the peer's address."""
        self._waiting: dict[Any, socket.socket] = {}
        self._lock = threading.Lock()
        self._on_tls_failure = on_tls_failure
        options["request_handler"] = BoundedRequestHandler
        super().__init__(*arguments, **options)
        self.daemon_threads = True
        self.block_on_close = False
        self.ae._servers.append(self)  # `shutdown` takes it out again

    request_queue_size = 128

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept, and nothing else."""
        listener: socket.socket = self.socket
        return listener.accept()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Let a connection wait in a thread of its own for its first byte."""
        for oldest in self._enter(request, client_address):
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands where TLS is spoken, then hand over to pynetdicom."""
        connection = self._spoken(request, client_address)
        if connection is not None:
            super().process_request_thread(connection, client_address)

    def begun(self, association: Association) -> None:
        """An association request was read: the connection is no longer one that waits."""
        transport = association.dul.socket
        with self._lock:
            for peer, connection in list(self._waiting.items()):
                if transport is not None and connection is transport.socket:
                    del self._waiting[peer]

    def _enter(self, request: socket.socket, client_address: Any) -> list[socket.socket]:
        """Note a new connection; those that make way for it, the oldest first."""
        with self._lock:
            for peer, connection in list(self._waiting.items()):
                if connection.fileno() < 0:  # closed meanwhile
                    del self._waiting[peer]
            same = [peer for peer in self._waiting if peer[0] == client_address[0]]
            leaving = same[: max(0, len(same) - MOST_WAITING_PER_ADDRESS + 1)]
            others = [peer for peer in self._waiting if peer not in leaving]
            leaving += others[: max(0, len(others) - MOST_WAITING + 1)]
            self._waiting[client_address] = request
            return [self._waiting.pop(peer) for peer in leaving]

    def _spoken(self, request: socket.socket, client_address: Any) -> socket.socket | None:
        """The connection once its peer has said something; None and closed where it says nothing."""
        connection = request
        try:
            if self.ssl_context is not None:
                connection = self.ssl_context.wrap_socket(
                    request, server_side=True, do_handshake_on_connect=False
                )
                with self._lock:
                    self._waiting[client_address] = connection
            if not select.select([connection], [], [], FIRST_BYTE_TIMEOUT_S)[0]:
                raise TimeoutError
            connection.settimeout(HANDSHAKE_TIMEOUT_S)
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            elif not connection.recv(1, socket.MSG_PEEK):
                raise ConnectionError
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(SEND_TIMEOUT_S)
        except (OSError, ValueError) as error:
            self._drop(connection, client_address)
            if isinstance(error, ssl.SSLError) and self._on_tls_failure is not None:
                self._on_tls_failure(str(client_address[0]))
            return None
        return connection

    def _drop(self, connection: socket.socket, client_address: Any) -> None:
        with self._lock:
            self._waiting.pop(client_address, None)
        with contextlib.suppress(OSError):
            connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: a traceback would hold what the peer sent."""


def _receive(transport: AssociationSocket, size_bytes: int) -> bytearray:
    """Read exactly so many bytes, or fewer where the peer has gone.

    Raises:
        OSError: a PDU that is too long, or a peer that stops in the middle of one.
    """
    if size_bytes > LARGEST_PDU_BYTES:
        raise OSError("PDU too long")
    connection = transport.socket
    received = bytearray(size_bytes)
    view, count = memoryview(received), 0
    while count < size_bytes:
        _acknowledge_at_once(connection)
        read = 0 if connection is None else connection.recv_into(view[count:])
        if not read:
            break
        count += read
    view.release()
    del received[count:]
    return received


def _acknowledge_at_once(connection: socket.socket | None) -> None:
    """Acknowledge what comes without the usual wait, which the system has to be told each time.

    dcmtk, as many scanners, sends a PDU's header and body apart and waits for the acknowledgement of the
    one before it sends the other: 40 ms an image (Nagle's algorithm against delayed acknowledgement).
    """
    if connection is not None and hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
