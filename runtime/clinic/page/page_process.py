"""The process of the page: uvicorn on one port, until it is told to stop."""

import logging
import warnings
from types import FrameType
from typing import TYPE_CHECKING

from edge_medgemma.runtime.clinic.addresses import LOOPBACK, server_names, uses_https
from edge_medgemma.runtime.clinic.certificates import ensure_server_certificate
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import DependencyError, ResourceError

if TYPE_CHECKING:
    from edge_medgemma.runtime.clinic.page.setup_view import Check


def run_page(
    state: StateFolder, settings: ClinicSettings, *, is_lan: bool, check: "Check | None" = None
) -> None:
    """Serve the page; returns after SIGTERM or SIGINT. Arguments as for `create_app`.

    Raises:
        DependencyError: the extra `clinic` is not installed.
        ResourceError: the port is taken or may not be used.
    """
    try:
        import uvicorn

        from edge_medgemma.runtime.clinic.page.access.server import server_config
        from edge_medgemma.runtime.clinic.page.app import create_app
    except ImportError as error:
        raise DependencyError(
            f"the page needs {error.name}; pip install 'edge-medgemma[clinic]'"
        ) from error
    _silence_parsers()
    app = create_app(state, settings, is_lan=is_lan, check=check)
    host = "0.0.0.0" if is_lan else LOOPBACK
    certificate, key = None, None
    if uses_https(settings, is_lan=is_lan):
        files = ensure_server_certificate(state, server_names(settings))
        certificate, key = files.certificate, files.key
    config = server_config(app, host, settings.page.port, certificate, key)

    class Server(uvicorn.Server):
        """Tells the streams to end as soon as the process is told to."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.stopping.set()
            super().handle_exit(sig, frame)

    server = Server(config)
    try:
        server.run()
    except KeyboardInterrupt:  # uvicorn raises the signal once more when it has ended
        return
    except SystemExit as error:  # SIGTERM likewise, or it could not begin
        if not server.started:
            raise ResourceError(
                f"the page could not listen on port {settings.page.port}; stop what uses it, or "
                "choose another under [page] in the settings"
            ) from error


def _silence_parsers() -> None:
    """Warnings and records of pydicom quote values of a file; here several threads parse at once."""
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").disabled = True
