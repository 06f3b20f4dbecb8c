"""Login, logout, the first user, and whether the page's process is well."""

from dataclasses import dataclass

import anyio
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from edge_medgemma.runtime.clinic.page.access.guard import (
    COOKIE,
    LOGIN_PAGE,
    access_of,
    browser_of,
    visitor_of,
)
from edge_medgemma.runtime.clinic.page.access.refusals import error_response, note
from edge_medgemma.runtime.clinic.page.access.sessions import Session
from edge_medgemma.runtime.clinic.page.access.users import User
from edge_medgemma.runtime.clinic.page.api.bodies import is_form, json_response, read_body
from edge_medgemma.runtime.clinic.page.api.operations import Operation
from edge_medgemma.runtime.errors import AccessError

FIRST_USER = "first user"
"""Stands for a name where the setup code is guessed."""

_HASHING = anyio.CapacityLimiter(2)
MOST_WAITING = 8


@dataclass(frozen=True, slots=True)
class Health:
    """What anybody may know."""

    status: str
    needs_setup: bool
    """Whether the first user must be made, with the setup code."""


@dataclass(frozen=True, slots=True)
class Login:
    """Body of a login."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Setup:
    """Body with which the first user is made."""

    code: str
    """As `edge-medgemma clinic` printed it; blanks and hyphens do not count."""
    user: str
    password: str


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """Who is logged in."""

    user: str
    csrf: str
    """To be sent as X-CSRF-Token with every change."""
    expires_at: str


async def health(request: Request) -> Response:
    """Whether the page's process is well."""
    return json_response(Health("ok", needs_setup=not access_of(request).users.names()))


async def session(request: Request) -> Response:
    """Who is logged in."""
    visitor = visitor_of(request)
    if visitor is None or visitor.session is None:
        return error_response(401, "login_needed", "Nobody is logged in.")
    return json_response(_info(visitor.session))


async def login(request: Request) -> Response:
    """Begin a session with a name and a password."""
    return _for_form(request, await _login(request))


async def setup(request: Request) -> Response:
    """Make the first user, with the code that the box printed, and log in."""
    return _for_form(request, await _setup(request))


async def logout(request: Request) -> Response:
    """End the session."""
    visitor, access = visitor_of(request), access_of(request)
    response = Response(status_code=204)
    if visitor is not None and visitor.session is not None:
        access.sessions.end(visitor.cookie)
        await note(access.state, "logout", visitor.name)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return _for_form(request, response)


OPERATIONS = [
    Operation("GET", "/api/health", health, None, Health, is_public=True),
    Operation("GET", "/api/session", session, None, SessionInfo, is_public=True),
    Operation("POST", "/api/login", login, Login, SessionInfo, is_public=True),
    Operation("POST", "/api/setup", setup, Setup, SessionInfo, 201, is_public=True),
    Operation("POST", "/api/logout", logout, status=204),
]


async def _login(request: Request) -> Response:
    body = await read_body(request, Login)
    access, browser = access_of(request), browser_of(request)
    name = body.user.strip()[:64]
    refusal = _must_wait(request, name)
    if refusal is not None:
        return refusal
    access.throttle.failed(browser.address, name)  # until it proves right: tries at once all count
    user = await run_sync(access.users.check, name, body.password, limiter=_HASHING)
    if user is None:
        who = name if access.users.find(name) else browser.address
        await note(access.state, "login_failed", who, detail=browser.address)
        words = "The name or the password is wrong."
        return error_response(401, "wrong_password", words)
    access.throttle.succeeded(browser.address, name)
    await note(access.state, "login", user.name, detail=browser.address)
    return _begun(request, user, 200)


async def _setup(request: Request) -> Response:
    body = await read_body(request, Setup)
    access, browser = access_of(request), browser_of(request)
    if access.users.names():
        return error_response(409, "not_first", "The box has users already. Log in.")
    refusal = _must_wait(request, FIRST_USER)
    if refusal is not None:
        return refusal
    if not access.users.is_setup_code(body.code):
        access.throttle.failed(browser.address, FIRST_USER)
        await note(access.state, "setup_refused", browser.address)
        words = "The setup code is wrong. The box prints it where it was started."
        return error_response(403, "wrong_code", words)

    def add() -> str:
        return access.users.add(body.user, body.password, is_first=True)

    try:
        name = await run_sync(add, limiter=_HASHING)
    except AccessError as error:
        return error_response(400, "not_added", str(error))
    user = access.users.find(name)
    if user is None:
        return error_response(409, "not_first", "The user was removed meanwhile.")
    await note(access.state, "first_user", name, detail=browser.address)
    return _begun(request, user, 201)


def _must_wait(request: Request, name: str) -> Response | None:
    wait_s = access_of(request).throttle.wait_s(browser_of(request).address, name)
    if _HASHING.statistics().tasks_waiting >= MOST_WAITING:
        wait_s = max(wait_s, 1.0)
    if wait_s <= 0:
        return None
    seconds = int(wait_s) + 1
    words = f"Too many tries. Wait {seconds} seconds."
    return error_response(429, "too_many_tries", words, {"Retry-After": str(seconds)})


def _begun(request: Request, user: User, status: int) -> Response:
    cookie, begun = access_of(request).sessions.start(user, browser_of(request))
    response = json_response(_info(begun), status)
    response.set_cookie(
        COOKIE,
        cookie,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


def _info(begun: Session) -> SessionInfo:
    return SessionInfo(begun.user, begun.csrf, begun.expires_at)


def _for_form(request: Request, response: Response) -> Response:
    """What a browser's form is answered with: the worklist, or the login page and why it was refused."""
    if not is_form(request):
        return response
    is_refused = response.status_code >= 400
    target = f"{LOGIN_PAGE}?refused={response.status_code}" if is_refused else "/"
    redirect = RedirectResponse(target, 303)
    for name in ("set-cookie", "retry-after"):
        for value in response.headers.getlist(name):
            redirect.headers.append(name, value)
    return redirect
