"""What a device installs: read a scan, run an engine, triage, report."""

import os

# onnxruntime 1.32 otherwise keeps a device id and queues events for events.data.microsoft.com.
# Read when its library loads: `onnxruntime.disable_telemetry_events()` comes too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
