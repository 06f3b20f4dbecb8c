"""Synthetic head-CT volumes with known findings, and an engine measured on them."""
