"""Bodies of requests as dataclasses, and dataclasses as responses."""

from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge_medgemma.runtime.clinic.page.access.guard import FORM, FORM_FIELD
from edge_medgemma.runtime.documents import parse_document

Body = TypeVar("Body")

JSON = "application/json"


class BadRequestError(Exception):
    """A request that does not say what the route needs; `args[0]` is for the caller."""


def content_type(request: Request) -> str:
    """Of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_form(request: Request) -> bool:
    """Whether a browser's form sent it, which wants a page in return."""
    return content_type(request) == FORM


async def read_body(request: Request, kind: type[Body]) -> Body:
    """The body of a request, JSON or a form's fields, as a dataclass.

    Raises:
        BadRequestError: another type, an unknown field, or no JSON. The message quotes no value.
    """
    data = await request.body()
    try:
        if is_form(request):
            fields = dict(parse_qsl(data.decode(), keep_blank_values=True))
            fields.pop(FORM_FIELD, None)
            return msgspec.convert(fields, kind, strict=False)
        if content_type(request) != JSON:
            raise BadRequestError(f"the body must be JSON, with Content-Type: {JSON}")
        raw = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        raise BadRequestError("the body cannot be read: it is not what its type says") from None
    try:
        return parse_document(raw, kind)
    except ValueError as error:  # names fields and types
        raise BadRequestError(f"the body is not what this route takes: {error}") from None


def json_response(document: object, status: int = 200) -> Response:
    """A dataclass, or a list or mapping of some, as JSON."""
    return Response(msgspec.json.encode(document), status, media_type=JSON)
