"""The few words of JSON Schema that our own schemas use."""

import re
from typing import Any

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
KNOWN = {
    "$schema", "$defs", "$ref", "title", "description", "type", "enum", "const", "properties",
    "required", "additionalProperties", "items", "anyOf", "allOf", "pattern", "minimum",
    "maximum", "minItems", "maxItems", "maxLength",
}  # fmt: skip


def errors(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> list[str]:
    """What breaks the schema, one line each; an unknown word in the schema is an error too."""
    found = [f"{at}: schema word {word!r}" for word in schema.keys() - KNOWN]
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        found += errors(value, root["$defs"][name], root, at)
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        kinds = ["boolean"] if isinstance(value, bool) else TYPES.keys() - {"boolean"}
        if not any(n in kinds and isinstance(value, TYPES[n]) for n in names):
            return [*found, f"{at}: {value!r} is not {names}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is not one of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} is not {schema['const']!r}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{at}: {value!r} does not match {schema['pattern']}")
    if "minimum" in schema and value is not None and value < schema["minimum"]:
        found.append(f"{at}: {value} is below {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        found.append(f"{at}: {value} is above {schema['maximum']}")
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        found.append(f"{at}: {len(value)} characters")
    for part in schema.get("allOf", ()):
        found += errors(value, part, root, at)
    if "anyOf" in schema and all(errors(value, part, root, at) for part in schema["anyOf"]):
        found.append(f"{at}: fits no alternative")
    if isinstance(value, dict):
        found += _object_errors(value, schema, root, at)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            found.append(f"{at}: {len(value)} items")
        for index, item in enumerate(value):
            found += errors(item, schema.get("items", {}), root, f"{at}[{index}]")
    return found


def _object_errors(
    value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], at: str
) -> list[str]:
    found = [f"{at}: lacks {key!r}" for key in schema.get("required", ()) if key not in value]
    properties = schema.get("properties", {})
    for key, item in value.items():
        part = properties.get(key, schema.get("additionalProperties", {}))
        found += errors(item, part, root, f"{at}.{key}")
    return found
