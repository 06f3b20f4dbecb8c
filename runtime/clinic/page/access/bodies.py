"""How large and how slow the body of a request may be."""

import asyncio
import re
import time
from dataclasses import dataclass

from starlette.types import Message, Receive

SMALL = 64 * 1024
PICTURES = 32 * 2**20
FILES = 16 * 2**30

_LIMITS = (
    (re.compile("/v1/chat/completions"), PICTURES),
    (re.compile("/api/uploads/[^/]+/files/[^/]+|/dicom-web/studies(/[^/]+)?"), FILES),
)

STALL_S = 30.0
"""Longest pause between two pieces of a body."""

SLOW_AFTER_S = 60.0
SLOWEST_BYTES_PER_S = 1000.0
"""After a minute: what is slower holds a place that others need."""


def body_limit(path: str) -> int:
    """Most bytes of a request to `path`."""
    return next((limit for pattern, limit in _LIMITS if pattern.fullmatch(path)), SMALL)


class BodyLimitError(BaseException):
    """A body is refused while a route reads it: for the guard alone, so no `except Exception` has it."""


class BodyTooLargeError(BodyLimitError):
    """More bytes than the path takes."""


class BodyTooSlowError(BodyLimitError):
    """No byte for too long, or too few."""


@dataclass(slots=True)
class LimitedBody:
    """A request's `receive` with limits."""

    receive: Receive
    limit: int
    is_complete: bool = False
    _count: int = 0
    _began_s: float | None = None

    async def __call__(self) -> Message:
        """The next message of the request.

        Raises:
            BodyTooLargeError: see there.
            BodyTooSlowError: see there.
        """
        if self.is_complete:
            return await self.receive()  # until the client goes away
        if self._began_s is None:
            self._began_s = time.monotonic()
        try:
            message = await asyncio.wait_for(self.receive(), STALL_S)
        except TimeoutError:
            raise BodyTooSlowError from None
        if message["type"] != "http.request":
            self.is_complete = True
            return message
        self._count += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        if self._count > self.limit:
            raise BodyTooLargeError
        elapsed_s = time.monotonic() - self._began_s
        if elapsed_s > SLOW_AFTER_S and self._count < elapsed_s * SLOWEST_BYTES_PER_S:
            raise BodyTooSlowError
        return message
