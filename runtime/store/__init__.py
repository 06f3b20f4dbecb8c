"""Caches on disk: files that runs leave for later runs."""
