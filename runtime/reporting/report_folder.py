"""The folder of one result: documents for people and programs, and a record that gives it all back.

triage.json       the public document
report.html       the page for a person
key_images/*.png  the key images
record.json       the report without loss, sealed; it names every other file with its SHA-256
"""

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from PIL import Image

from edge_medgemma.runtime.documents import Sha256, dump_sealed, parse_sealed
from edge_medgemma.runtime.errors import EvaluationError
from edge_medgemma.runtime.files import new_directory, write_atomically
from edge_medgemma.runtime.reporting.html_report import render_html
from edge_medgemma.runtime.reporting.json_report import dump_report
from edge_medgemma.runtime.reporting.options import DEFAULT_OPTIONS, RenderOptions
from edge_medgemma.runtime.triage.report import TriageReport

RECORD_FILE = "record.json"
TRIAGE_FILE = "triage.json"
PAGE_FILE = "report.html"
KEY_IMAGE_FOLDER = "key_images"

_NOT_FINITE = "$not_finite"
"""Key of the object that stands for a number that JSON does not have."""


@dataclass(frozen=True, slots=True)
class _Record:
    """Content of record.json."""

    record_version: Literal[1]
    files: Mapping[str, Sha256]
    """Path in the folder to SHA-256, of all other files."""
    report: Mapping[str, Any]
    """`TriageReport`, key images by the path of their file."""


def write_report_folder(
    report: TriageReport, folder: Path, options: RenderOptions = DEFAULT_OPTIONS
) -> None:
    """Write the folder of a result as a whole; `read_report_folder` is the inverse.

    Args:
        report: of one scan
        folder: does not exist yet, or is empty
        options: how report.html is shown

    Raises:
        ResourceError: the folder holds something, the disk is full or it cannot be written; nothing
            is left behind.
    """
    pictures: dict[str, bytes] = {}

    def plain(value: object) -> object:
        if isinstance(value, np.ndarray):
            name = f"{KEY_IMAGE_FOLDER}/{len(pictures) + 1:03d}.png"
            pictures[name] = png_bytes(value)
            return name
        if isinstance(value, str):
            return str(value)  # a UID of pydicom
        if isinstance(value, np.generic):
            return _spelled(value.item())
        raise TypeError(f"{type(value).__name__} has no place in a record")

    content = _spelled(msgspec.to_builtins(report, enc_hook=plain, str_keys=True))
    files = {
        TRIAGE_FILE: dump_report(report).encode(),
        PAGE_FILE: render_html(report, options).encode(),
        **pictures,
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    record = _Record(1, digests, content)
    with new_directory(folder) as temporary:
        for name, data in files.items():
            write_atomically(temporary / name, data)
        write_atomically(temporary / RECORD_FILE, dump_sealed(record).encode())


def read_report_folder(folder: Path) -> TriageReport:
    """The report that `write_report_folder` wrote, equal in every number and pixel.

    Raises:
        EvaluationError: a file is missing, or altered since.
    """
    try:
        record = parse_sealed((folder / RECORD_FILE).read_bytes(), _Record)
        files = {name: (folder / name).read_bytes() for name in record.files}
        altered = [
            name
            for name, data in files.items()
            if hashlib.sha256(data).hexdigest() != record.files[name]
        ]
        if altered:
            raise ValueError(f"'{altered[0]}' was altered")

        def rebuilt(kind: type, value: Any) -> Any:
            if kind is np.ndarray or getattr(kind, "__origin__", None) is np.ndarray:
                return np.asarray(Image.open(io.BytesIO(files[value])))
            raise TypeError(f"{kind} has no place in a record")

        return msgspec.convert(_numbers(record.report), TriageReport, dec_hook=rebuilt)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"result '{folder.name}' cannot be read ({error}); triage the scan again"
        ) from None


def png_bytes(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """A grey picture [rows, columns] as a PNG, which carries no metadata."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def _spelled(value: Any) -> Any:
    """Numbers that are not finite as objects that say which."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_NOT_FINITE: str(value)}
    if isinstance(value, dict):
        return {key: _spelled(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(one) for one in value]
    return value


def _numbers(value: Any) -> Any:
    """The inverse of `_spelled`."""
    if isinstance(value, Mapping):
        if value.keys() == {_NOT_FINITE}:
            return float(value[_NOT_FINITE])
        return {key: _numbers(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(one) for one in value]
    return value
