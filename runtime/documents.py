"""JSON files as frozen dataclasses: what a type does not know or allow is refused, not ignored.

A sealed file says in its second line the SHA-256 of all others, so that no altered byte of it, not
even a blank, is believed: `grep -v '^ "sha256"' FILE | sha256sum` prints what that line must say.
"""

import hashlib
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np

Count = Annotated[int, msgspec.Meta(ge=1)]
Size = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Finite = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Text = Annotated[str, msgspec.Meta(pattern=r"\S")]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

Document = TypeVar("Document")

_BEFORE_SEAL = b'{\n "sha256": "'
_AFTER_SEAL = b'",\n'
_SEAL_END = len(_BEFORE_SEAL) + 64


def parse_json(data: bytes, kind: type[Document]) -> Document:
    """An instance of a dataclass from JSON text; raises as `parse_document`."""
    return parse_document(msgspec.json.decode(data), kind)


def parse_document(raw: object, kind: type[Document]) -> Document:
    """An instance of a dataclass from what a JSON or TOML file holds.

    Raises:
        ValueError: names the first field that is unknown, missing, or of another type or range.
    """
    document = msgspec.convert(raw, kind)
    unknown = _unknown_field(raw, msgspec.to_builtins(document), "$")
    if unknown:
        raise ValueError(f"unknown field `{unknown}`")
    return document


def dump_json(document: object) -> str:
    """Canonical JSON text, keys sorted, ending in a newline; a number that is not finite is null."""
    data = msgspec.json.encode(document, order="sorted", enc_hook=_plain)
    return msgspec.json.format(data, indent=1).decode() + "\n"


def dump_sealed(document: object) -> str:
    """`dump_json` of an object with fields, its seal as the first of them."""
    data = dump_json(document).encode()
    digest = hashlib.sha256(data).hexdigest().encode()
    return (_BEFORE_SEAL + digest + _AFTER_SEAL + data.removeprefix(b"{\n")).decode()


def unsealed(data: bytes) -> bytes:
    """The JSON text of `dump_sealed` without its seal.

    Raises:
        ValueError: there is no seal, or it is not that of the text.
    """
    text = b"{\n" + data[_SEAL_END + len(_AFTER_SEAL) :]
    digest = hashlib.sha256(text).hexdigest().encode()
    if data[: _SEAL_END + len(_AFTER_SEAL)] != _BEFORE_SEAL + digest + _AFTER_SEAL:
        raise ValueError("its SHA-256 is not that of its content")
    return text


def parse_sealed(data: bytes, kind: type[Document]) -> Document:
    """An instance of a dataclass from the text of `dump_sealed`.

    Raises:
        ValueError: altered, or as `parse_document`.
    """
    return parse_json(unsealed(data), kind)


def _plain(value: object) -> object:
    """A pydicom UID as the text that it is, a numpy scalar as its number."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def json_schema(kind: type[Document], title: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of a dataclass; the docstrings are its descriptions."""
    schema = msgspec.json.schema(kind)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title} | schema


def _unknown_field(raw: object, known: object, path: str) -> str | None:
    """Path of the first key of `raw` that its type left out."""
    pairs: list[tuple[object, object, str]] = []
    if isinstance(raw, dict) and isinstance(known, dict):
        for key in raw:
            if key not in known:
                return f"{path}.{key}"
        pairs = [(value, known[key], f"{path}.{key}") for key, value in raw.items()]
    elif isinstance(raw, list) and isinstance(known, list | tuple):
        pairs = [(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(raw, known, strict=True))]
    return next(filter(None, (_unknown_field(*pair) for pair in pairs)), None)
