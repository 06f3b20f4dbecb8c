"""Documents against their published schemas."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"


def schema_errors(document: Any, schema: dict[str, Any]) -> list[str]:
    """What breaks the schema, a line each."""
    Draft202012Validator.check_schema(schema)
    found = Draft202012Validator(schema).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found]


def assert_valid(document: Any, name: str) -> None:
    """`document`, or the JSON file of this path, follows docs/schemas/NAME.schema.json."""
    if isinstance(document, Path):
        document = json.loads(document.read_text(encoding="utf-8"))
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    found = schema_errors(document, schema)
    assert not found, "; ".join(found)
