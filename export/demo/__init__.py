"""The training of the built-in demonstration engine."""
