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

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_response(
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str] | None = None,
    param: str | None = None,
) -> JSONResponse:
    """An error as OpenAI's clients and the page read it.

    Args:
        status: of HTTP
        code: stable, snake case
        message: for people: nothing of the request stands in it
        headers: further ones
        param: of the request that is wrong
    """
    return JSONResponse(error_content(status, code, message, param), status, headers)


def error_content(
    status: int, code: str, message: str, param: str | None = None
) -> dict[str, dict[str, str | None]]:
    """The body of `error_response`."""
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


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
