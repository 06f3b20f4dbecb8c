"""Connections that say nothing, or say it slowly: ended, and few from one address."""

import asyncio
from collections import Counter

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 10.0
"""From the first byte a client may send, or its connection, to the end of the headers."""

MOST_OF_ONE_ADDRESS = 64
"""A browser opens six; a ward behind one address has several browsers."""

_connections: Counter[str] = Counter()


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP with what it lacks: a time limit for headers, and one for each address."""

    _header_timer: asyncio.TimerHandle | None = None
    _address: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or end it where its address has too many."""
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if _connections[address] >= MOST_OF_ONE_ADDRESS:
            transport.abort()
            return
        self._address = address
        _connections[address] += 1
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        if self._address is not None:
            _connections[self._address] -= 1
            if not _connections[self._address]:
                del _connections[self._address]
            self._address = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; while headers are not whole the time runs."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_timer()
        elif self._header_timer is None:
            self._await_headers()

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(HEADERS_S, self._end)

    def _end(self) -> None:
        self._header_timer = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
