"""The cost of quantisation: measured on held-out slices, and its page."""
