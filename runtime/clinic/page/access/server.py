"""uvicorn's settings for a page on a hospital's network."""

from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from edge_medgemma.runtime.clinic.page.access.slow_clients import PatientProtocol

KEEP_ALIVE_S = 15
HEADER_BYTES = 32 * 1024
STOP_S = 5
"""For answers that are being streamed when the page is told to stop."""


def server_config(
    app: ASGIApp, host: str, port: int, certificate: Path | None = None, key: Path | None = None
) -> uvicorn.Config:
    """The settings of the page's server.

    No header of a proxy is believed, and no request is logged: addresses hold study keys.

    Args:
        app: within a `Guard`
        host: address to listen at
        port: to listen at
        certificate: PEM file of the chain; None serves plain HTTP
        key: PEM file of its key
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=PatientProtocol,
        ws="none",
        ssl_certfile=certificate,
        ssl_keyfile=key,
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
        h11_max_incomplete_event_size=HEADER_BYTES,
    )
