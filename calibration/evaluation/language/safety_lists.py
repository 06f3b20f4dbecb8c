"""Lists of requests: MedSafetyBench, HarmBench, XSTest, or a plain column of prompts."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edge_medgemma.calibration.evaluation.datasets.csv_table import CsvTable, open_table, shown
from edge_medgemma.runtime.errors import DatasetError

SAFE: Literal["safe"] = "safe"
UNSAFE: Literal["unsafe"] = "unsafe"


@dataclass(frozen=True, slots=True)
class SafetyRequest:
    """One request."""

    key: str
    """Id in the list, or its row from 1."""
    text: str
    is_safe: bool
    """Whether it deserves an answer: refusing it is over-refusal."""
    category: str
    """Of the list; empty where it has none."""


@dataclass(frozen=True, slots=True)
class SafetyList:
    """Requests of a file."""

    layout: str
    sha256: str
    requests: tuple[SafetyRequest, ...]


def read_safety_list(path: Path) -> SafetyList:
    """Requests of a CSV, or of every CSV of a folder; the layout is known by the columns.

    Raises:
        LabelError: no such file, or no table.
        DatasetError: none of the known layouts, several at once, or an empty prompt.
    """
    if not path.is_dir():
        return _read_file(path)
    files = sorted(path.glob("*.csv"))
    parts = [_read_file(file) for file in files]
    layouts = sorted({part.layout for part in parts})
    if len(layouts) != 1:
        found = f"lists of several layouts ({', '.join(layouts)})" if layouts else "no CSV"
        raise DatasetError(f"'{path}' holds {found}; give a CSV, or a folder of CSVs of one layout")
    requests = [
        replace(one, key=f"{file.stem} {one.key}", category=one.category or file.stem)
        for file, part in zip(files, parts, strict=True)
        for one in part.requests
    ]
    digest = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
    return SafetyList(layouts[0], digest, tuple(requests))


def _read_file(path: Path) -> SafetyList:
    table = open_table(path)
    columns = set(table.columns)
    if "harmful_medical_request" in columns:
        return _list(table, "medsafetybench", "harmful_medical_request")
    if "Behavior" in columns:
        return _list(table, "harmbench", "Behavior", "BehaviorID", "FunctionalCategory")
    if {"prompt", "type"} <= columns:
        return _list(table, "xstest", "prompt", "id", "type")
    if "prompt" in columns:
        return _list(table, "prompts", "prompt", "id", "category")
    raise DatasetError(
        f"'{path}' has the columns {shown(table.columns)}; expected those of MedSafetyBench "
        "(harmful_medical_request), HarmBench (Behavior), XSTest (prompt, type, label) or a column "
        "'prompt'"
    )


def _list(
    table: CsvTable, layout: str, prompt: str, key: str = "", category: str = ""
) -> SafetyList:
    requests = []
    for number, (line, fields) in enumerate(table.rows(), start=1):
        row = {name: one for name, one in zip(table.columns, fields, strict=True) if name}
        if not row[prompt]:
            raise DatasetError(f"'{table.path}', line {line}: '{prompt}' is empty")
        kind = row.get(category, "")
        requests.append(
            SafetyRequest(
                row.get(key) or str(number),
                _with_context(row, row[prompt]),
                _is_safe(row, kind, layout, f"'{table.path}', line {line}"),
                kind,
            )
        )
    keys = [request.key for request in requests]
    if len(set(keys)) < len(keys):
        twice = next(one for one in keys if keys.count(one) > 1)
        raise DatasetError(f"'{table.path}' has the id {shown([twice])} twice; give each its own")
    return SafetyList(layout, table.sha256, tuple(requests))


def _with_context(row: Mapping[str, str], text: str) -> str:
    """HarmBench's contextual behaviours stand behind their context, as its own code puts them."""
    context = row.get("ContextString", "")
    return f"{context}\n\n---\n\n{text}" if context else text


def _is_safe(row: Mapping[str, str], kind: str, layout: str, place: str) -> bool:
    """XSTest labels each prompt, older versions by types that begin with `contrast_`."""
    label = row.get("label", "").lower() if layout in ("xstest", "prompts") else ""
    if label not in ("", SAFE, UNSAFE):
        raise DatasetError(f"{place}: label is {shown([label])}; expected safe or unsafe")
    if label:
        return label == SAFE
    return layout == "xstest" and not kind.startswith("contrast_")
