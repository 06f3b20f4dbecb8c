"""Write the JSON Schema of every file that a command writes: `make schemas`."""

import ast
import inspect
import json
import sys
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

from edge_medgemma.calibration.evaluation.document import EvaluationDocument
from edge_medgemma.calibration.evaluation.language.injection_document import InjectionDocument
from edge_medgemma.calibration.evaluation.language.report_document import ReportDocument
from edge_medgemma.calibration.evaluation.language.safety_document import SafetyDocument
from edge_medgemma.calibration.evaluation.language.vqa_document import VqaDocument
from edge_medgemma.calibration.record import CalibrationRecord
from edge_medgemma.export.commands.export_record import ExportRecord
from edge_medgemma.runtime.backends.tensorrt.plan_files import PlanRecord
from edge_medgemma.runtime.commands.cache import CacheListing
from edge_medgemma.runtime.commands.doctor import Diagnosis
from edge_medgemma.runtime.commands.inspect import ScanListing
from edge_medgemma.runtime.documents import json_schema
from edge_medgemma.runtime.manifest import Manifest
from edge_medgemma.runtime.parity import Parity
from edge_medgemma.runtime.profiling.record import Benchmark
from edge_medgemma.runtime.reporting.triage_document import TriageDocument
from edge_medgemma.runtime.triage.protocol import ProtocolFile
from edge_medgemma.runtime.triage.scoring.operating_points import OperatingPoints

FOLDER = Path(__file__).parent / "schemas"

DOCUMENTS: dict[str, tuple[type, str]] = {
    "triage": (TriageDocument, "triage.json of a triage run"),
    "manifest": (Manifest, "manifest.json of an engine directory"),
    "benchmark": (Benchmark, "JSON file of 'edge-medgemma benchmark --json'"),
    "calibration": (CalibrationRecord, "calibration.json"),
    "thresholds": (OperatingPoints, "thresholds.json of an engine directory"),
    "parity": (Parity, "parity.json of an engine directory"),
    "plans": (PlanRecord, "record.json beside TensorRT plans"),
    "vqa": (VqaDocument, "vqa.json of 'edge-medgemma evaluate vqa'"),
    "safety": (SafetyDocument, "safety.json of 'edge-medgemma evaluate safety'"),
    "injection": (InjectionDocument, "injection.json of 'edge-medgemma evaluate injection'"),
    "reports": (ReportDocument, "reports.json of 'edge-medgemma evaluate reports'"),
    "inspect": (ScanListing, "Output of inspect --json"),
    "cache": (CacheListing, "Output of cache list --json"),
    "protocol": (ProtocolFile, "A triage protocol, as TOML"),
    "evaluation": (EvaluationDocument, "evaluation.json of an evaluation"),
    "export": (ExportRecord, "Output of 'edge-medgemma export --json'"),
    "doctor": (Diagnosis, "Output of 'edge-medgemma doctor --json'"),
}
"""Name of the schema -> type of the document and its title."""

SEALED = ("manifest", "calibration", "parity", "plans", "thresholds")
"""Documents that begin with the hash of the rest of their text, which is no field of their type."""


SEAL = {
    "description": "SHA-256 of the file without this line",
    "type": "string",
    "pattern": "^[0-9a-f]{64}$",
}


def schema_text(name: str) -> str:
    """The schema of a document, descriptions taken from the docstrings of its types and fields."""
    kind, title = DOCUMENTS[name]
    schema = json_schema(kind, title)
    for one in _dataclasses(kind, {}).values():
        properties = schema["$defs"][one.__name__]["properties"]
        for field, text in _field_docstrings(one).items():
            properties[field] = {"description": text} | properties[field]
    if name in SEALED:
        document = schema["$defs"][kind.__name__]
        document["properties"] = {"sha256": SEAL, **document["properties"]}
        document["required"] = ["sha256", *document["required"]]
    return json.dumps(schema, indent=1) + "\n"


def _dataclasses(kind: Any, found: dict[str, type]) -> dict[str, type]:
    """`kind` and every dataclass that its fields hold, by name."""
    if is_dataclass(kind) and isinstance(kind, type) and kind.__name__ not in found:
        found[kind.__name__] = kind
        for hint in get_type_hints(kind).values():
            _dataclasses(hint, found)
    for argument in get_args(kind):
        _dataclasses(argument, found)
    return found


def _field_docstrings(kind: type) -> dict[str, str]:
    """The string below each field of a dataclass."""
    texts: dict[str, str] = {}
    own = {field.name for field in fields(kind)}
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    for field, text in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and field.target.id in own
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            texts[field.target.id] = inspect.cleandoc(text.value.value)
    return texts


def main() -> None:
    """Write all schemas, or only those named."""
    for name in sys.argv[1:] or DOCUMENTS:
        (FOLDER / f"{name}.schema.json").write_text(schema_text(name), encoding="utf-8")


if __name__ == "__main__":
    main()
