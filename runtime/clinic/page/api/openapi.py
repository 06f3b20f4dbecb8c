"""The OpenAPI 3.1 document, made of the operations and the types that they take and give."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edge_medgemma import __version__
from edge_medgemma.runtime.clinic.page.api.operations import Operation

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_SUMMARIES = {"key": "Key of a study: 32 hexadecimal digits.", "id": "As the box gave it."}


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """What went wrong."""

    message: str
    """For people."""
    type: str
    param: str | None
    """Of the request, where one is wrong."""
    code: str
    """Stable, snake case."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """Body of every response that is no success."""

    error: ErrorDetail


def openapi_document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document of the operations."""
    types: list[Any] = [ErrorBody]
    for operation in operations:
        types += [one for one in (operation.takes, operation.gives) if isinstance(one, type)]
    types = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = _PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edge-medgemma clinic",
            "version": __version__,
            "description": "Aid to prioritisation, not a diagnosis; no flag is not a normal report.",
        },
        "paths": paths,
        "security": [{"token": []}, {"session": []}],
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "edge-medgemma-session"},
            },
        },
    }


def _operation(operation: Operation, by_type: dict[Any, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Success."}
    if operation.gives is not None:
        success["content"] = _content(operation.gives, by_type)
    failure = {"description": "Refused or failed.", "content": _content(ErrorBody, by_type)}
    found: dict[str, Any] = {
        "operationId": "_".join((operation.method.lower(), *re.findall(r"[a-z]+", operation.path))),
        "summary": (inspect.getdoc(operation.endpoint) or "").splitlines()[0],
        "responses": {str(operation.status): success, "default": failure},
    }
    names = _PARAMETER.findall(operation.path)
    if names:
        found["parameters"] = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": _SUMMARIES.get(name, ""),
                "schema": {"type": "string"},
            }
            for name in names
        ]
    if operation.takes is not None:
        found["requestBody"] = {"required": True, "content": _content(operation.takes, by_type)}
    if operation.is_public:
        found["security"] = []
    return found


def _content(kind: type | str, by_type: dict[Any, Any]) -> dict[str, Any]:
    if isinstance(kind, str):
        schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
        return {kind: {"schema": schema}}
    return {"application/json": {"schema": by_type[kind]}}
