"""What every request passes before a route sees it: host, origin, size, login, change token."""

import hmac
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_medgemma.runtime.clinic.addresses import server_names
from edge_medgemma.runtime.clinic.page.access.bodies import (
    SMALL,
    BodyTooLargeError,
    BodyTooSlowError,
    LimitedBody,
    body_limit,
)
from edge_medgemma.runtime.clinic.page.access.headers import (
    add_default_headers,
    bearer_token,
    is_own_host,
    is_own_page,
    lower,
)
from edge_medgemma.runtime.clinic.page.access.refusals import Refusals, error_response
from edge_medgemma.runtime.clinic.page.access.sessions import Browser, Session, Sessions
from edge_medgemma.runtime.clinic.page.access.throttle import Throttle
from edge_medgemma.runtime.clinic.page.access.tokens import Tokens
from edge_medgemma.runtime.clinic.page.access.users import Users
from edge_medgemma.runtime.clinic.page.access.view_log import ViewLog
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder

COOKIE = "edge-medgemma-session"
LOGIN_PAGE = "/login"

PUBLIC = frozenset(
    {LOGIN_PAGE, "/favicon.ico", "/api/health", "/api/login", "/api/setup", "/api/session"}
)
PUBLIC_FOLDER = "/static/"
PROGRAM_FOLDERS = ("/api/", "/v1/", "/dicom-web/")
FORM = "application/x-www-form-urlencoded"
FORM_FIELD = "csrf_token"
READING = frozenset({"GET", "HEAD"})

WRONG_HOST = (
    "The box is not called by this name. Use the address on its setup page, or add the name to "
    "page.host_names in the settings."
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who sent a request."""

    name: str
    """Of the user, or of the program's token; in the audit."""
    session: Session | None
    """None for programs."""
    cookie: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """What the routes of login and logout work on."""

    state: StateFolder
    users: Users
    tokens: Tokens
    sessions: Sessions
    throttle: Throttle
    refusals: Refusals
    views: ViewLog


def access_of(connection: HTTPConnection) -> Access:
    """The page's access control, in a route."""
    access: Access = connection.scope["state"]["access"]
    return access


def visitor_of(connection: HTTPConnection) -> Visitor | None:
    """Who sent the request; None on a public path without login."""
    visitor: Visitor | None = connection.scope["state"]["visitor"]
    return visitor


def browser_of(connection: HTTPConnection) -> Browser:
    """What a session of this request is bound to."""
    address = connection.client.host if connection.client else ""
    return Browser(address, connection.headers.get("user-agent", ""))


class _RefusedError(Exception):
    def __init__(self, response: Response, kind: str) -> None:
        self.response = response
        self.kind = kind


def _refused(status: int, kind: str, message: str) -> _RefusedError:
    return _RefusedError(error_response(status, kind, message), kind)


class Guard:
    """ASGI middleware, the outermost: what it lets through is `visitor_of` somebody, or public."""

    def __init__(self, app: ASGIApp, state: StateFolder, settings: ClinicSettings) -> None:
        """Around the whole application."""
        users = Users(state)
        users.setup_code()
        sessions = Sessions(users, settings.page.session_hours)
        self._app = app
        self._access = Access(
            state,
            users,
            Tokens(state),
            sessions,
            Throttle(),
            Refusals(state),
            ViewLog(state),
        )
        self._names = lower(server_names(settings))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(send)
        body = LimitedBody(receive, body_limit(scope["path"]))
        try:
            visitor = self._let_in(scope, body)
            await self._app(scope, await _with_change_token(scope, body, visitor), answer)
        except _RefusedError as error:
            address = scope["client"][0] if scope["client"] else ""
            if error.kind != "login_needed":
                await self._access.refusals.note(address, error.kind)
            await answer.instead(scope, receive, error.response)
        except BodyTooLargeError:
            await answer.instead(scope, receive, _too_large(body.limit))
        except BodyTooSlowError:
            words = "The upload stopped or was too slow. Begin again where it stopped."
            await answer.instead(scope, receive, error_response(408, "too_slow", words))

    def _let_in(self, scope: Scope, body: LimitedBody) -> Visitor | None:
        connection = HTTPConnection(scope)
        headers, path = connection.headers, scope["path"]
        is_change = scope["method"] not in READING
        server_address = scope["server"][0] if scope.get("server") else ""
        if not is_own_host(headers, self._names, server_address):
            raise _refused(403, "unknown_host", WRONG_HOST)
        if not is_own_page(headers, scope["scheme"], is_change=is_change):
            raise _refused(403, "other_site", "A page of another site may not do this.")
        _check_length(headers, body.limit)
        visitor = self._visitor(connection)
        is_public = path in PUBLIC or path.startswith(PUBLIC_FOLDER)
        if visitor is None and not is_public:
            raise _RefusedError(_login_needed(scope), "login_needed")
        scope["state"] = {**scope.get("state", {}), "access": self._access, "visitor": visitor}
        return visitor

    def _visitor(self, connection: HTTPConnection) -> Visitor | None:
        token = bearer_token(connection.headers)
        if token is not None:
            name = self._access.tokens.find(token)
            if name is None:
                words = "This token is not known; 'edge-medgemma clinic token add' makes one."
                raise _refused(401, "unknown_token", words)
            return Visitor(name, None)
        cookie = connection.cookies.get(COOKIE)
        if not cookie:
            return None
        session, is_stolen = self._access.sessions.find(cookie, browser_of(connection))
        if is_stolen:
            raise _RefusedError(_login_needed(connection.scope), "session_of_another")
        return None if session is None else Visitor(session.user, session, cookie)


class _Answer:
    """A `send` that adds the headers of every response and knows whether one has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun = True
            add_default_headers(MutableHeaders(scope=message))
        await self._send(message)

    async def instead(self, scope: Scope, receive: Receive, response: Response) -> None:
        """Answer in place of the application, and end the connection: the rest is not read.

        Half an answer of the application is broken off by the server.
        """
        if self._has_begun:
            return
        response.headers["Connection"] = "close"
        await response(scope, receive, self)


async def _with_change_token(scope: Scope, body: LimitedBody, visitor: Visitor | None) -> Receive:
    """Refuse a change by a person without the token of a page of theirs; the body, to be read.

    It comes as a header, or as the field of a form, which is short.
    """
    is_change = scope["method"] not in READING
    if visitor is None or visitor.session is None or not is_change or scope["path"] in PUBLIC:
        return body
    headers = Headers(scope=scope)
    receive: Receive = body
    given = headers.get("x-csrf-token", "")
    if not given and headers.get("content-type", "").startswith(FORM) and body.limit == SMALL:
        data, receive = await _read_whole(body)
        given = dict(parse_qsl(data.decode("latin-1"))).get(FORM_FIELD, "")
    if not hmac.compare_digest(given.encode(), visitor.session.csrf.encode()):
        raise _refused(403, "no_change_token", "The page is out of date. Load it again.")
    return receive


async def _read_whole(body: LimitedBody) -> tuple[bytes, Receive]:
    """The bytes of a body, and what gives them once more."""
    messages = []
    while not body.is_complete:
        messages.append(await body())
    rest = iter(messages)

    async def again() -> Message:
        return next(rest, None) or await body()

    return b"".join(one.get("body", b"") for one in messages), again


def _check_length(headers: Headers, limit: int) -> None:
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length) > limit:
        raise BodyTooLargeError


def _too_large(limit: int) -> Response:
    words = f"More than {limit // 1024:,} kB, the most that is taken here."
    return error_response(413, "too_large", words)


def _login_needed(scope: Scope) -> Response:
    is_page = scope["method"] in READING and not scope["path"].startswith(PROGRAM_FOLDERS)
    if is_page or Headers(scope=scope).get("content-type", "").startswith(FORM):
        return RedirectResponse(LOGIN_PAGE, 303)
    headers = {"WWW-Authenticate": "Bearer"}
    return error_response(401, "login_needed", "Log in, or send a token.", headers)
