"""Self-tests that a device or library passes before it is trusted with an engine."""
