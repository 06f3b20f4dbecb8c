"""All routes of the API."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_medgemma.runtime.clinic.page.access.refusals import error_response
from edge_medgemma.runtime.clinic.page.api import account_routes
from edge_medgemma.runtime.clinic.page.api.bodies import JSON, BadRequestError
from edge_medgemma.runtime.clinic.page.api.chat_routes import ChatRoutes
from edge_medgemma.runtime.clinic.page.api.openapi import openapi_document
from edge_medgemma.runtime.clinic.page.api.operations import Endpoint, Operation
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


def routes(state: StateFolder, settings: ClinicSettings) -> list[Route]:
    """Routes for an application inside a `Guard`, which says who may call them."""
    found = operations(Services.of(state, settings))
    document = msgspec.json.encode(openapi_document(found))

    async def describe(request: Request) -> Response:
        return Response(document, media_type=JSON)

    return [
        Route("/api/openapi.json", describe, methods=["GET"]),
        *(one.route(plain_errors) for one in found),
    ]


def operations(services: Services) -> list[Operation]:
    """All routes of the API with what they take and give."""
    return [
        *account_routes.OPERATIONS,
        *StudyRoutes(services).operations(),
        *QuestionRoutes(services).operations(),
        *ChatRoutes(services).operations(),
        *UploadRoutes(services).operations(),
        *StowRoutes(services).operations(),
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
