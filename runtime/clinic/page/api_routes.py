"""All routes of the API."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_medgemma.runtime.clinic.page.access.refusals import error_response
from edge_medgemma.runtime.clinic.page.api import account_routes
from edge_medgemma.runtime.clinic.page.api.bodies import BadRequestError
from edge_medgemma.runtime.clinic.page.api.chat_routes import ChatRoutes
from edge_medgemma.runtime.clinic.page.api.question_routes import QuestionRoutes
from edge_medgemma.runtime.clinic.page.api.services import Services
from edge_medgemma.runtime.clinic.page.api.stow import StowRoutes
from edge_medgemma.runtime.clinic.page.api.study_routes import StudyRoutes
from edge_medgemma.runtime.clinic.page.api.upload_routes import UploadRoutes
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import (
    AccessError,
    QuestionError,
    ResourceError,
    ScanError,
    WorklistError,
)

Endpoint = Callable[[Request], Awaitable[Response]]


def routes(state: StateFolder, settings: ClinicSettings) -> list[Route]:
    """Routes for an application inside a `Guard`, which says who may call them."""
    services = Services.of(state, settings)
    found = [
        *account_routes.ROUTES,
        *StudyRoutes(services).routes(),
        *QuestionRoutes(services).routes(),
        *ChatRoutes(services).routes(),
        *UploadRoutes(services).routes(),
        *StowRoutes(services).routes(),
    ]
    return [
        Route(route.path, plain_errors(route.endpoint), methods=sorted(route.methods or ()))
        for route in found
    ]


def plain_errors(endpoint: Endpoint) -> Endpoint:
    """The endpoint, its errors told to the caller in words and by a stable code."""

    async def called(request: Request) -> Response:
        try:
            return await endpoint(request)
        except BadRequestError as error:
            return error_response(400, "bad_request", str(error))
        except (ScanError, AccessError) as error:
            return error_response(400, "refused", str(error))
        except WorklistError as error:
            return error_response(404, "unknown_study", str(error))
        except QuestionError as error:
            return error_response(503, "engine_busy", str(error))
        except ResourceError:
            words = "The disk of the box is full or cannot be written. Nothing was changed."
            return error_response(507, "no_space", words)

    return called
