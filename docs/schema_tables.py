"""The directive `json-schema FILE`: a table of the fields of each object in a JSON Schema."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Schema = Mapping[str, Any]


class JsonSchema(SphinxDirective):
    """Its argument is the path of the schema, relative to the folder of the documentation."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Sections that the document then holds."""
        path = Path(self.env.srcdir, self.arguments[0])
        self.env.note_dependency(str(path))
        schema = json.loads(path.read_text(encoding="utf-8"))
        return self.parse_text_to_nodes(markdown(schema), allow_section_headings=True)


def markdown(schema: Schema) -> str:
    """A section for the schema itself and for each part that it defines."""
    parts = {"The file": schema, **schema.get("$defs", {})}
    return "\n".join(line for name, part in parts.items() for line in _section(name, part))


def _section(name: str, part: Schema) -> Iterator[str]:
    yield from (f"## {name}", "", part.get("description", ""), "")
    if "properties" not in part:
        yield from (_type(part), "")
        return
    yield from ("| field | type | meaning |", "|---|---|---|")
    for field, value in part["properties"].items():
        yield from _rows(field, value)
    yield ""


def _rows(field: str, value: Schema) -> Iterator[str]:
    """A row for the field, and one for each field of an object that is written out in place."""
    yield f"| `{field}` | {_type(value)} | {value.get('description', '').replace('|', '/')} |"
    parts = (value, value.get("items", {}), *value.get("anyOf", ()))
    for inline in (part for part in parts if isinstance(part, Mapping)):
        for inner, inner_value in inline.get("properties", {}).items():
            yield from _rows(f"{field}.{inner}", inner_value)


def _type(value: Schema | bool) -> str:
    """The type in words, with its allowed values; `true` is the schema of anything."""
    if isinstance(value, bool):
        return "any"
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(_type(choice) for choice in value["anyOf"])
    if "enum" in value or "const" in value:
        return ", ".join(f"`{json.dumps(one)}`" for one in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        return f"array of {_type(value.get('items') or value.get('prefixItems', [True])[0])}"
    kinds = value.get("type", "any")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx when it loads the extension."""
    app.add_directive("json-schema", JsonSchema)
    return {"parallel_read_safe": True}
