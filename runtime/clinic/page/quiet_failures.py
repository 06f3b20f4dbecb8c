"""What goes wrong in a view: a sentence for the reader, and a line in the log without a word of a scan."""

import logging
import traceback
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger(__name__)

FAILED = "This did not work. Go back and try again."


class QuietFailures:
    """ASGI middleware; messages of errors may quote a file, so that only their kind and place are kept."""

    def __init__(self, app: ASGIApp) -> None:
        """Around the routes."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or _is_of_guard(error):
                raise
            LOG.error("%s at %s", type(error).__name__, _place(error))
            if has_begun:
                raise ConnectionAbortedError from None
            await PlainTextResponse(FAILED, 500)(scope, receive, send)


def _is_of_guard(error: Exception) -> bool:
    """Errors that the guard around the application turns into answers."""
    return type(error).__module__.startswith("edge_medgemma.runtime.clinic.page.access")


def _place(error: Exception) -> str:
    """`file:line` of the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
