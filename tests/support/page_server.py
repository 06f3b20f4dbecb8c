"""The page's server in a thread of the test, and a client that sends exactly what it is told to."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from edge_medgemma.runtime.clinic.certificates import CertificateFiles
from edge_medgemma.runtime.clinic.page.access.guard import Guard
from edge_medgemma.runtime.clinic.page.access.server import server_config
from edge_medgemma.runtime.clinic.page.access.users import Users
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder

USER, PASSWORD = "Amina Bello", "a few words will do"


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(
    state: StateFolder,
    routes: list[BaseRoute],
    settings: ClinicSettings | None = None,
    certificate: CertificateFiles | None = None,
) -> Iterator[int]:
    """Port of a server of `routes` inside a Guard."""
    guard = Guard(Starlette(routes=routes), state, settings or ClinicSettings())
    port = free_port()
    files = (None, None) if certificate is None else (certificate.certificate, certificate.key)
    server = uvicorn.Server(server_config(guard, "127.0.0.1", port, *files))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    yield port
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of an error."""
        code: str = self.json["error"]["code"]
        return code


@dataclass
class Caller:
    """A browser or a program: keeps its cookie, and sends the headers that it is told to."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    """It connects from."""
    cookie: str = ""

    def __call__(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send one request; bytes as they are, anything else as JSON."""
        sent = {**self.headers, **(headers or {})}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if body is not None and not isinstance(body, bytes):
            sent.setdefault("Content-Type", "application/json")
        if self.cookie:
            sent.setdefault("Cookie", self.cookie)
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=20, source_address=(self.address, 0)
        )
        with contextlib.closing(connection):
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            set_cookie = response.headers.get("Set-Cookie")
            if set_cookie:
                self.cookie = set_cookie.partition(";")[0]
            return Reply(response.status, dict(response.headers), response.read())

    def log_in(self, user: str = USER, password: str = PASSWORD) -> Reply:
        """Log in and send the token of changes from now on."""
        reply = self("POST", "/api/login", {"user": user, "password": password})
        if reply.status == 200:
            self.headers["X-CSRF-Token"] = reply.json["csrf"]
        return reply


def add_user(state: StateFolder) -> None:
    """The user of `Caller.log_in`."""
    Users(state).add(USER, PASSWORD)
