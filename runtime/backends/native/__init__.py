"""This package's own kernels on the CPU: the vision tower."""
