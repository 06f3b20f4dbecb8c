"""The OpenAPI document says what the routes are and what they give."""

import re
import subprocess
import sys
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.page_server import Caller

from edge_medgemma.runtime.clinic.page.access.guard import PUBLIC
from edge_medgemma.runtime.clinic.page.api.services import Services
from edge_medgemma.runtime.clinic.page.api_routes import operations, routes
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.store import Worklist


@pytest.fixture
def document(nurse: Caller) -> dict[str, Any]:
    found: dict[str, Any] = nurse("GET", "/api/openapi.json").json
    return found


def _validator(document: dict[str, Any], schema: object) -> Draft202012Validator:
    return Draft202012Validator({"$ref": "#/x", "x": schema, "components": document["components"]})


def test_the_document_describes_every_route(state: StateFolder, document: dict[str, Any]) -> None:
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    served = {
        (method, re.sub(r":\w+\}", "}", route.path))
        for route in routes(state, ClinicSettings())
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == served - {("GET", "/api/openapi.json")}
    identifiers = [
        one["operationId"] for methods in document["paths"].values() for one in methods.values()
    ]
    assert len(identifiers) == len(set(identifiers))
    public = {
        path
        for path, methods in document["paths"].items()
        for one in methods.values()
        if one.get("security") == []
    }
    assert public == {path for path in PUBLIC if path.startswith("/api/")}


def test_every_reference_and_schema_holds(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("description") or schema.get("title"), name
    references = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert references == set(schemas)
    for path, methods in document["paths"].items():
        for one in methods.values():
            named = {parameter["name"] for parameter in one.get("parameters", [])}
            assert named == set(re.findall(r"\{(\w+)\}", path))
            assert one["summary"].endswith("."), path


@pytest.mark.parametrize(
    "path", ["/api/health", "/api/session", "/api/status", "/api/associations",
             "/api/destinations", "/api/studies", "/api/studies/{key}"],
)  # fmt: skip
def test_responses_are_as_described(
    nurse: Caller, state: StateFolder, document: dict[str, Any], path: str
) -> None:
    key = state.study_key("1.2.3")
    with Worklist.open(state) as worklist:
        worklist.note_arrivals(key, "1.2.3", "CT1", 2)
    reply = nurse("GET", path.replace("{key}", key))
    assert reply.status == 200
    given = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    _validator(document, given["schema"]).validate(reply.json)
    wrong = {**reply.json, next(iter(reply.json)): {"x": 1}}
    assert not _validator(document, given["schema"]).is_valid(wrong)


def test_errors_are_as_described(nurse: Caller, document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/ErrorBody"}
    for method, path in (
        ("GET", "/api/studies/" + "0" * 32), ("POST", "/api/login"), ("GET", "/v1/models/none"),
    ):  # fmt: skip
        reply = nurse(method, path)
        assert reply.status >= 400
        _validator(document, schema).validate(reply.json)


def test_the_api_never_loads_an_engine() -> None:
    code = (
        "import sys, tempfile\nfrom pathlib import Path\n"
        "from edge_medgemma.runtime.clinic.page import api_routes\n"
        "from edge_medgemma.runtime.clinic.page.access import guard, server\n"
        "from edge_medgemma.runtime.clinic.settings import ClinicSettings\n"
        "from edge_medgemma.runtime.clinic.state_folder import StateFolder\n"
        "state = StateFolder(Path(tempfile.mkdtemp()))\nstate.create()\n"
        "api_routes.routes(state, ClinicSettings())\n"
        "heavy = {'onnxruntime', 'tokenizers', 'openvino', 'pynetdicom', 'highdicom', 'tensorrt'}\n"
        "engines = [name for name in sys.modules if name.split('.')[0] in heavy\n"
        "           or name.startswith('edge_medgemma.runtime.backends')\n"
        "           or name == 'edge_medgemma.runtime.generation.engine']\n"
        "assert not engines, engines"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_operations_are_made_of_types(state: StateFolder) -> None:
    for one in operations(Services.of(state, ClinicSettings())):
        assert one.gives is not None or one.status == 204, one.path
