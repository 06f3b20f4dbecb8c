"""The commands that need a checkpoint."""
