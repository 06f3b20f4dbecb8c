"""Coarse-to-fine triage: passes over more and more slices of a study, within a time budget."""
