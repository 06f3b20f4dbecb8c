"""Listing of a folder, an archive or one file."""
