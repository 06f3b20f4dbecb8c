"""A protocol and a stack in, a triage report out."""
