"""Runs an engine over medical slices: what it knows, what it loses."""
