"""The benchmark's table, page and JSON."""
