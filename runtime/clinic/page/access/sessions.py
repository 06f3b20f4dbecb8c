"""Sessions of people who logged in: in memory, each bound to one browser at one address."""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from edge_medgemma.runtime.clinic.page.access.users import User, Users

MOST_SESSIONS = 500
MOST_OF_ONE_USER = 10


@dataclass(frozen=True, slots=True)
class Browser:
    """What a session is bound to."""

    address: str
    """Of the machine."""
    agent: str
    """Its User-Agent header."""


@dataclass(frozen=True, slots=True)
class Session:
    """One login."""

    user: str
    csrf: str
    """Comes with every change, from a page of this box alone."""
    expires_at: str
    """UTC, ISO 8601, by the device's clock; counted by its steady one."""
    _browser: Browser = field(repr=False)
    _password_hash: str = field(repr=False)
    _ends_s: float = field(repr=False)


class Sessions:
    """All sessions of the page's process; they end with it."""

    def __init__(
        self, users: Users, hours: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin without any; each lasts for `hours`."""
        self._users = users
        self._hours = hours
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def start(self, user: User, browser: Browser) -> tuple[str, Session]:
        """A session, and what its cookie holds; kept here as a hash only."""
        cookie = secrets.token_urlsafe(32)
        session = Session(
            user=user.name,
            csrf=secrets.token_urlsafe(24),
            expires_at=(datetime.now(UTC) + timedelta(hours=self._hours)).isoformat(
                timespec="seconds"
            ),
            _browser=browser,
            _password_hash=user.password_hash,
            _ends_s=self._clock() + self._hours * 3600,
        )
        own = [key for key, one in self._sessions.items() if one.user == user.name]
        for key in own[: max(0, len(own) - MOST_OF_ONE_USER + 1)]:
            del self._sessions[key]
        self._sessions[_digest(cookie)] = session
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return cookie, session

    def find(self, cookie: str, browser: Browser) -> tuple[Session | None, bool]:
        """The session of a cookie, and whether the cookie was stolen.

        One that comes from another browser or address ends its session: one of the two is a thief.
        """
        key = _digest(cookie)
        session = self._sessions.get(key)
        if session is None:
            return None, False
        if session._browser != browser:
            del self._sessions[key]
            return None, True
        user = self._users.find(session.user)
        is_current = user is not None and user.password_hash == session._password_hash
        if self._clock() >= session._ends_s or not is_current:
            del self._sessions[key]
            return None, False
        return session, False

    def end(self, cookie: str) -> None:
        """Log out."""
        self._sessions.pop(_digest(cookie), None)


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()
