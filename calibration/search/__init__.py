"""Ranges, smoothing and integers that quantise the model with the least error."""
