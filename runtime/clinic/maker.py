"""What stands in objects that this program makes, by which it knows them when they come back."""

MANUFACTURER = "edge-medgemma"
"""Manufacturer (0008,0070) of every SR, KO, SC and PDF that leaves the box."""
