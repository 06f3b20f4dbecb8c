"""Every level that this processor runs, one test each: import `level` into a module or a conftest."""

from collections.abc import Iterator

import pytest

from edge_medgemma.runtime.kernels.level import cpu_kernels, kernel_level

LEVELS = cpu_kernels.claimed_levels() if cpu_kernels else []


@pytest.fixture(params=LEVELS, autouse=True)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of a level, which computes until the test ends."""
    usual = kernel_level()
    cpu_kernels.use_level(request.param)
    yield request.param
    cpu_kernels.use_level(usual)
