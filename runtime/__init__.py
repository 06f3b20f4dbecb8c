"""The part that a device installs: read a scan, run an engine, triage, report.

The names of `__all__` are loaded when they are first used, so that importing this package, and with
it `edge-medgemma --help`, costs no numpy and no onnxruntime.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_medgemma.runtime.generation.engine import Engine
    from edge_medgemma.runtime.triage.chat_session import open_scan
    from edge_medgemma.runtime.triage.options import TriageOptions
    from edge_medgemma.runtime.triage.triage_scan import triage_scan

# onnxruntime 1.32 otherwise keeps a device id and queues events for events.data.microsoft.com.
# Read when its library loads: `onnxruntime.disable_telemetry_events()` comes too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__all__ = ["Engine", "TriageOptions", "open_scan", "triage_scan"]

_MODULE_OF = {
    "Engine": "generation.engine",
    "TriageOptions": "triage.options",
    "open_scan": "triage.chat_session",
    "triage_scan": "triage.triage_scan",
}


def __getattr__(name: str) -> object:
    """A name of `__all__`, from the module that defines it."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
