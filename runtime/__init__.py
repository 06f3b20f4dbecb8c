"""What a device installs: read a scan, run an engine, triage, report."""
