"""Refusals, said in JSON to the caller and, a few a minute, in the audit."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from anyio.to_thread import run_sync
from starlette.responses import JSONResponse

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.errors import ResourceError

LOG = logging.getLogger(__name__)

REPEAT_S = 60.0
"""One line of the audit in so many seconds for each kind of refusal of one address."""

MOST_KEYS = 1000


def error_response(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as OpenAI's clients and the page read it.

    Args:
        status: of HTTP
        code: stable, snake case
        message: for people: nothing of the request stands in it
        headers: further ones
    """
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status in (401, 403):
        kind = "authentication_error" if status == 401 else "permission_error"
    elif status == 429:
        kind = "rate_limit_error"
    content = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return JSONResponse(content, status, headers)


@dataclass(slots=True)
class Refusals:
    """Writes refusals into the audit, however many there are."""

    state: StateFolder
    clock: Callable[[], float] = time.monotonic
    _last: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)

    async def note(self, address: str, kind: str) -> None:
        """An address was refused for a reason of a closed list."""
        now, key = self.clock(), (address, kind)
        last = self._last.get(key)
        if last is not None and now - last < REPEAT_S:
            return
        if len(self._last) >= MOST_KEYS:
            self._last.popitem(last=False)
        self._last[key] = now
        await note(self.state, "refused", address, detail=kind)


async def note(
    state: StateFolder, event: str, who: str, study_key: str = "", detail: str = ""
) -> None:
    """Add a line to the audit, off the event loop; a full disk does not stop the page."""
    try:
        await run_sync(audit.append, state, event, who, study_key, detail)
    except ResourceError:
        LOG.error("the audit cannot be written: the disk is full or may not be written")
