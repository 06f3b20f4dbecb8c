"""Which level of the kernels computes in this process: the fastest that the processor runs."""

from functools import cache

try:
    from edge_medgemma.runtime.kernels import cpu_kernels
except ImportError:  # no C compiler was there when the package was installed
    cpu_kernels = None  # type: ignore[assignment]


__all__ = ["cpu_kernels", "kernel_level", "level_absence"]


@cache
def kernel_level() -> str | None:
    """Name of the level in use, chosen at the first call; None where no kernel runs here."""
    if cpu_kernels is None:
        return None
    for level in cpu_kernels.claimed_levels():
        cpu_kernels.use_level(level)
        return level
    return None


def level_absence() -> str | None:
    """Why no kernel computes here; None where one does."""
    if cpu_kernels is None:
        return "no kernels: there was no C compiler at installation"
    if kernel_level() is None:
        return "no kernels: they are for x86-64 with AVX2 and for arm64 with dot products"
    return None
