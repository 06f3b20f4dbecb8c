"""The page as one application; what it shows is read from the state folder alone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from edge_medgemma.runtime.clinic.heartbeat import beat
from edge_medgemma.runtime.clinic.page import (
    api_routes,
    image_views,
    login_view,
    setup_view,
    sheets,
    views,
)
from edge_medgemma.runtime.clinic.page.access.guard import Guard
from edge_medgemma.runtime.clinic.page.board import Board
from edge_medgemma.runtime.clinic.page.image_cache import ImageCache
from edge_medgemma.runtime.clinic.page.quiet_failures import QuietFailures
from edge_medgemma.runtime.clinic.page.rendering import PAGES, render_page
from edge_medgemma.runtime.clinic.page.stacks import StackStore
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.reporting.translation import mark

PROCESS = "page"
BEAT_S = 2.0

STATIC = PAGES.parent / "static"

FAILED = mark("This did not work. Go back and try again.")
ERROR_WORDS = {
    403: mark("This is not allowed. Go back and load the page again."),
    404: mark("There is nothing here: the study may have been deleted."),
    405: mark("This address is not for that."),
}


def create_app(
    state: StateFolder,
    settings: ClinicSettings,
    *,
    is_lan: bool = False,
    check: setup_view.Check | None = None,
) -> Starlette:
    """The application.

    Args:
        state: of the box; its folders exist
        settings: of the box
        is_lan: whether other machines than this one are answered
        check: tests all connections for the setup page; None offers no test
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        beating = asyncio.create_task(_beat(state))
        try:
            yield
        finally:
            app.state.stopping.set()
            beating.cancel()
            app.state.stacks.close()
            app.state.board.close()

    app = Starlette(
        routes=[*_routes(), *api_routes.routes(state, settings)],
        middleware=[Middleware(Guard, state=state, settings=settings), Middleware(QuietFailures)],
        exception_handlers={HTTPException: _error_page},
        lifespan=lifespan,
    )
    app.state.folder = state
    app.state.settings = settings
    app.state.is_lan = is_lan
    app.state.check = check
    app.state.board = Board(state)
    app.state.stacks = StackStore(state, ImageCache(state))
    app.state.stopping = asyncio.Event()
    return app


def _routes() -> list[Route | Mount]:
    study = "/studies/{key}"
    return [
        Route("/", views.worklist),
        Route("/live", views.live),
        Route("/add", views.add),
        Route("/login", login_view.login),
        Route("/setup", setup_view.setup),
        Route("/setup/test", setup_view.test_connections, methods=["POST"]),
        Route("/setup/authority.pem", setup_view.authority),
        Route(study, views.study),
        Route(f"{study}/sheet", sheets.sheet),
        Route(f"{study}/stack", image_views.stack),
        Route(f"{study}/slices/{{tag}}/{{window}}/{{index:int}}.jpg", image_views.slice_image),
        Route(
            f"{study}/results/{{number:int}}/key_images/{{part:int}}/{{place:int}}.png",
            image_views.key_image,
        ),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]


async def _beat(state: StateFolder) -> None:
    while True:
        beat(state, PROCESS)
        await asyncio.sleep(BEAT_S)


async def _error_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return render_page(request, "error.html", {"message": ERROR_WORDS.get(status, FAILED)}, status)
