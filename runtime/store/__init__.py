"""Everything that is kept on disk between runs."""
