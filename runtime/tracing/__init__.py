"""Spans of a run and the trace file."""
