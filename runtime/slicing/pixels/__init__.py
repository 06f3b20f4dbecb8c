"""Decoding of pixel data, in a process of its own."""
