"""Who gets in: logins, programs, and everything that a hostile page or neighbour sends."""

import contextlib
import http.client
import json
import socket
import ssl
import stat
import time
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from support.page_server import PASSWORD, USER, Caller, add_user, serving

from edge_medgemma.runtime.clinic.certificates import ensure_server_certificate
from edge_medgemma.runtime.clinic.page.access import bodies, slow_clients
from edge_medgemma.runtime.clinic.page.access.guard import visitor_of
from edge_medgemma.runtime.clinic.page.access.headers import DEFAULT_HEADERS
from edge_medgemma.runtime.clinic.page.access.throttle import Throttle
from edge_medgemma.runtime.clinic.page.access.tokens import Tokens
from edge_medgemma.runtime.clinic.page.access.users import Users
from edge_medgemma.runtime.clinic.page.api_routes import routes
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit

CHANGED: list[bytes] = []


async def _change(request: Request) -> Response:
    CHANGED.append(await request.body())
    visitor = visitor_of(request)
    return PlainTextResponse("" if visitor is None else visitor.name)


ROUTES = [
    Route("/", _change),
    Route("/change", _change, methods=["GET", "POST"]),
    Route("/api/change", _change, methods=["GET", "POST", "DELETE"]),
]


@pytest.fixture
def port(state: StateFolder) -> Iterator[int]:
    CHANGED.clear()
    add_user(state)
    settings = ClinicSettings()
    with serving(state, [*ROUTES, *routes(state, settings)], settings) as port:
        yield port


def _events(state: StateFolder) -> list[tuple[str, str, str]]:
    return [(line.event, line.who, line.detail) for line in audit.read(state)]


def test_a_person_logs_in_changes_something_and_logs_out(port: int, state: StateFolder) -> None:
    caller = Caller(port)
    assert caller("GET", "/").headers["location"] == "/login"
    assert caller("GET", "/api/change").code == "login_needed"
    reply = caller.log_in()
    assert reply.json["user"] == USER
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert caller("POST", "/api/change", {"a": 1}).body.decode() == USER
    assert caller("GET", "/api/session").json == reply.json
    assert caller("POST", "/api/logout").status == 204
    assert caller("POST", "/api/change").status == 401
    assert [event for event, *_ in _events(state)] == ["login", "logout"]
    assert PASSWORD.encode() not in state.users_file.read_bytes()
    assert stat.S_IMODE(state.users_file.stat().st_mode) == 0o600


def test_every_response_keeps_the_page_to_itself(port: int) -> None:
    for reply in (Caller(port)("GET", "/"), Caller(port)("GET", "/api/health")):
        for name, value in DEFAULT_HEADERS.items():
            assert reply.headers[name.lower()] == value


def test_a_form_without_javascript_logs_in_and_changes(port: int) -> None:
    caller = Caller(port)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    wrong = caller("POST", "/api/login", b"user=Amina+Bello&password=wrong", form)
    assert (wrong.status, wrong.headers["location"]) == (303, "/login?refused=401")
    right = b"user=Amina+Bello&password=a+few+words+will+do"
    assert caller("POST", "/api/login", right, form).headers["location"] == "/"
    token = caller("GET", "/api/session").json["csrf"]
    assert caller("POST", "/change", b"language=fr", form).code == "no_change_token"
    stranger = Caller(port)("POST", "/api/logout", b"x=1", form)
    assert (stranger.status, stranger.headers["location"]) == (303, "/login")
    body = f"language=fr&csrf_token={token}".encode()
    assert caller("POST", "/change", body, form).status == 200
    assert [body] == CHANGED


REFUSED = [
    ({"Origin": "http://evil.example"}, "other_site"),
    ({"Origin": "null"}, "other_site"),
    ({"Sec-Fetch-Site": "cross-site"}, "other_site"),
    ({"Sec-Fetch-Site": "same-site"}, "other_site"),
    ({"Host": "evil.example"}, "unknown_host"),
    ({"Host": "127.0.0.1.evil.example:8080"}, "unknown_host"),
    ({"Host": "10.1.2.3"}, "unknown_host"),
    ({"Host": "["}, "unknown_host"),
    ({"Host": "127.0.0.1:8080.evil.example"}, "unknown_host"),
    ({"X-CSRF-Token": ""}, "no_change_token"),
    ({"X-CSRF-Token": "wrong"}, "no_change_token"),
]


@pytest.mark.parametrize(("headers", "code"), REFUSED)
def test_requests_of_other_sites_change_nothing(
    port: int, state: StateFolder, headers: dict[str, str], code: str
) -> None:
    caller = Caller(port)
    caller.log_in()
    assert caller("POST", "/api/change", {"a": 1}, headers).code == code
    assert not CHANGED
    assert _events(state)[-1] == ("refused", "127.0.0.1", code)
    own = {"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert caller("POST", "/api/change", {"a": 1}, own).status == 200


def test_the_page_answers_to_the_names_of_the_box(state: StateFolder) -> None:
    from edge_medgemma.runtime.clinic.settings import Page

    settings = ClinicSettings(page=Page(host_names=("Triage.clinic.example",)))
    with serving(state, [*routes(state, settings)], settings) as port:
        for host in (
            "localhost", "LOCALHOST:8080", f"127.0.0.1:{port}", "triage.clinic.example.",
        ):  # fmt: skip
            assert Caller(port)("GET", "/api/health", headers={"Host": host}).status == 200


def test_a_request_that_calls_the_box_by_no_name_is_refused(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /api/health HTTP/1.0\r\n\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 403")


def test_a_stolen_session_is_refused_and_ends(port: int, state: StateFolder) -> None:
    nurse = Caller(port, {"User-Agent": "ward browser"})
    nurse.log_in()
    for agent, address in (("another", "127.0.0.1"), ("ward browser", "127.0.0.2")):
        thief = Caller(port, {"User-Agent": agent}, address, nurse.cookie)
        assert thief("GET", "/api/change").status == 401
        assert nurse("GET", "/api/change").status == 401  # one of the two is a thief
        assert _events(state)[-1][0::2] == ("refused", "session_of_another")
        nurse.log_in()
    assert nurse("GET", "/api/change").status == 200
    assert (
        Caller(port, nurse.headers, cookie="edge-medgemma-session=x")("GET", "/api/change").status
        == 401
    )


def test_a_user_who_is_removed_is_logged_out(port: int, state: StateFolder) -> None:
    caller = Caller(port)
    caller.log_in()
    Users(state).remove(USER)
    assert caller("GET", "/api/change").status == 401


def test_a_program_has_a_token_until_it_is_removed(port: int, state: StateFolder) -> None:
    token = Tokens(state).add("records")
    program = Caller(port, {"Authorization": f"Bearer {token}"})
    assert program("POST", "/api/change", {"a": 1}).body == b"records"
    assert program("POST", "/api/change", {}, {"Origin": "http://evil.example"}).status == 403
    assert token.encode() not in state.tokens_file.read_bytes()
    Tokens(state).remove("records")
    assert program("POST", "/api/change", {}).code == "unknown_token"


def test_guessing_waits_and_locks_nobody_else_out(port: int, state: StateFolder) -> None:
    thief, nurse = Caller(port, address="127.0.0.9"), Caller(port, address="127.0.0.1")
    nurse.log_in()
    replies = [thief.log_in(password="wrong guess!") for _ in range(8)]
    assert [reply.status for reply in replies] == [401] * 5 + [429] * 3
    assert int(replies[-1].headers["retry-after"]) >= 1
    assert thief.log_in().status == 429  # the right one too: else waiting would not slow a guesser
    assert nurse.log_in().status == 200
    assert Caller(port, address="127.0.0.7").log_in().status == 200
    assert ("login_failed", USER, "127.0.0.9") in _events(state)


def test_a_name_guessed_from_everywhere_still_logs_in_where_it_did(state: StateFolder) -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    throttle.succeeded("ward", "amina")
    for number in range(200):
        throttle.failed(f"10.0.0.{number}", "amina")
    assert throttle.wait_s("ward", "amina") == 0
    assert 0 < throttle.wait_s("10.0.1.1", "amina") <= 60
    assert throttle.wait_s("10.0.1.1", "another") == 0
    now[0] += 61
    assert throttle.wait_s("10.0.1.1", "amina") == 0


def test_the_first_user_is_made_with_the_code_alone(state: StateFolder) -> None:
    settings = ClinicSettings()
    with serving(state, [*ROUTES, *routes(state, settings)], settings) as port:
        caller = Caller(port)
        assert caller("GET", "/api/health").json == {"status": "ok", "needs_setup": True}
        code = state.setup_code_file.read_text().strip()
        assert stat.S_IMODE(state.setup_code_file.stat().st_mode) == 0o600
        body = {"code": code, "user": USER, "password": PASSWORD}
        wrong = f"{(int(code) + 1) % 10**8:08d}"
        assert caller("POST", "/api/setup", {**body, "code": wrong}).code == "wrong_code"
        assert caller("POST", "/api/setup", {**body, "password": "short"}).code == "not_added"
        assert caller("POST", "/api/setup", {**body, "user": "a/../b"}).code == "not_added"
        reply = caller("POST", "/api/setup", {**body, "code": f" {code[:4]}-{code[4:]}"})
        assert (reply.status, reply.json["user"]) == (201, USER)
        assert caller("GET", "/api/change").status == 200
        assert not state.setup_code_file.exists()
        assert caller("POST", "/api/setup", body, {"Cookie": ""}).code == "not_first"
    assert [event for event, *_ in _events(state)] == ["setup_refused", "first_user"]


def test_large_bodies_are_refused_before_and_while_they_come(port: int) -> None:
    caller = Caller(port)
    caller.log_in()
    announced = {"Content-Length": str(2**40)}
    assert caller("POST", "/api/change", b"x", announced).code == "too_large"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = (
            f"POST /api/change HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {caller.cookie}\r\n"
            f"X-CSRF-Token: {caller.headers['X-CSRF-Token']}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode() + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 3)
        assert connection.recv(64).startswith(b"HTTP/1.1 413")
    assert not CHANGED


def test_clients_that_say_nothing_or_little_are_ended(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_clients, "HEADERS_S", 0.2)
    monkeypatch.setattr(bodies, "STALL_S", 0.2)
    address = ("127.0.0.1", port)
    silent = [socket.create_connection(address, timeout=20) for _ in range(60)]
    half = socket.create_connection(address, timeout=20)
    half.sendall(b"GET /api/health HTTP/1.1\r\nHost: loc")
    body = socket.create_connection(address, timeout=20)
    body.sendall(
        b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{"
    )
    assert Caller(port)("GET", "/api/health").status == 200
    assert body.recv(64).startswith(b"HTTP/1.1 408")
    for connection in (*silent, half):
        with connection, contextlib.suppress(ConnectionResetError):
            assert connection.recv(64) == b""
    body.close()


def test_one_address_cannot_take_all_connections(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_clients, "MOST_OF_ONE_ADDRESS", 5)
    address = ("127.0.0.1", port)
    taken = [
        socket.create_connection(address, timeout=20, source_address=("127.0.0.5", 0))
        for _ in range(5)
    ]
    time.sleep(0.1)
    with pytest.raises(ConnectionError):
        Caller(port, address="127.0.0.5")("GET", "/api/health")
    assert Caller(port, address="127.0.0.6")("GET", "/api/health").status == 200
    for connection in taken:
        connection.close()


def test_refusals_do_not_fill_the_audit(port: int, state: StateFolder) -> None:
    for _ in range(30):
        Caller(port)("GET", "/", headers={"Host": "evil.example"})
    assert _events(state) == [("refused", "127.0.0.1", "unknown_host")]


def test_over_tls_the_cookie_stays_on_tls_and_nobody_stalls_the_others(state: StateFolder) -> None:
    add_user(state)
    settings = ClinicSettings()
    files = ensure_server_certificate(state, ["localhost", "127.0.0.1"])
    context = ssl.create_default_context(cafile=str(files.authority))
    with serving(state, list(routes(state, settings)), settings, files) as port:
        silent = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(20)]
        connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=context)
        body = json.dumps({"user": USER, "password": PASSWORD})
        own = {"Content-Type": "application/json", "Origin": f"https://localhost:{port}"}
        connection.request("POST", "/api/login", body, own)
        reply = connection.getresponse()
        assert reply.status == 200 and "; Secure" in str(reply.headers["Set-Cookie"])
        reply.read()
        connection.request(
            "POST", "/api/login", body, {**own, "Origin": f"http://localhost:{port}"}
        )
        assert connection.getresponse().status == 403
        connection.close()
        for one in silent:
            one.close()
