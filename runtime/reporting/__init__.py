"""A triage report in, files out."""
