"""Each test of this folder runs at every level that the processor has."""

from support.kernel_levels import level

__all__ = ["level"]
