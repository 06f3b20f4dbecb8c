"""Which weights are quantised, and how."""
