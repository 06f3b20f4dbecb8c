"""Compiled attention and linear kernels, and the checks that admit them."""
