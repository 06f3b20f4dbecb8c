"""JSON schemas of structured answers about a scan."""

import json
from pathlib import Path
from typing import Any

from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.triage.protocol import Protocol

MAX_SCHEMA_BYTES = 64 * 1024
"""No sensible schema is larger."""

PRESENCE = ("yes", "no", "uncertain")

LATERALITY = ("left", "right", "bilateral", "midline", "not_applicable")

MAX_KEY_SLICES = 8
"""Slice numbers listed for one finding; more are a range, which nobody checks one by one."""

MAX_COMMENT_CHARACTERS = 120


def findings_schema(protocol: Protocol, slices: int) -> dict[str, Any]:
    """One object for each finding of the protocol, by its code, every key required.

    Args:
        protocol: whose findings are answered.
        slices: shown to the model; it may name 1 to so many, as their labels do.
    """
    answer = {
        "present": {"enum": list(PRESENCE)},
        "slices": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": slices},
            "maxItems": min(MAX_KEY_SLICES, slices),
        },
        "laterality": {"enum": list(LATERALITY)},
        "comment": {"type": "string", "maxLength": MAX_COMMENT_CHARACTERS},
    }
    return _closed_object({f.code: _closed_object(answer) for f in protocol.findings})


def load_schema(path: Path) -> dict[str, Any]:
    """A JSON schema from a file.

    Raises:
        ProtocolError: the file cannot be read or is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SCHEMA_BYTES + 1)
        if len(data) > MAX_SCHEMA_BYTES:
            raise ValueError(f"it is larger than {MAX_SCHEMA_BYTES} bytes")
        schema = json.loads(data)
    except OSError as error:
        raise ProtocolError(f"cannot read schema '{path}': {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            f"schema '{path}' is not JSON ({error}); expected findings or a JSON schema"
        ) from None
    if not isinstance(schema, dict):
        raise ProtocolError(f"schema '{path}' is no JSON object; expected a JSON schema")
    return schema


def _closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
