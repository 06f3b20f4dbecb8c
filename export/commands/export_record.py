"""What `export --json` prints."""

import resource
import sys
from dataclasses import dataclass
from typing import Any, Literal

from edge_medgemma.runtime.documents import Positive, Size
from edge_medgemma.runtime.manifest import Manifest, Precision


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """An engine that was exported, and what it cost."""

    schema_version: Literal[1]
    engine: str
    """Its directory, as it was named."""
    manifest_sha256: str
    bytes: Size
    """Of all its files."""
    precision: Precision
    int8_layers: tuple[str, ...]
    """Linear layers of an int4 engine that have 8 bits because of the loss that is accepted."""
    loss: dict[str, Any] | None
    """Against the float model, as the manifest has it; null where it was not measured."""
    measured_on: str | None
    """Text or slices that the loss was measured on."""
    elapsed_s: Positive
    peak_memory_bytes: Size


def export_record(engine: str, manifest: Manifest, elapsed_s: float) -> ExportRecord:
    """The record of an export by this process."""
    calibration = manifest.calibration or {}
    return ExportRecord(
        schema_version=1,
        engine=engine,
        manifest_sha256=manifest.sha256,
        bytes=sum(record.bytes for record in manifest.files.values()),
        precision=manifest.precision,
        int8_layers=tuple(calibration.get("int8_layers", ())),
        loss=calibration.get("loss"),
        measured_on=calibration.get("measured_on"),
        elapsed_s=elapsed_s,
        peak_memory_bytes=_peak_memory_bytes(),
    )


def _peak_memory_bytes() -> int:
    """Peak resident bytes of this process; Linux reports kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
