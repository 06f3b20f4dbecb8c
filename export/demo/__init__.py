"""The training of the demo engine."""
