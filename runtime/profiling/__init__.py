"""Where the time goes: spans of a run, and the benchmark of an engine on a device."""
