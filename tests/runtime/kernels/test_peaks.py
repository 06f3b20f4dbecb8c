import pytest

from edge_medgemma.runtime.kernels.level import cpu_kernels
from edge_medgemma.runtime.profiling.kernel_peaks import kernel_peaks

TYPES = ["int8", "int16", "float32"]
TILES = ["int8 tiles", "bfloat16 tiles"]
IMPOSSIBLE = 30
"""No processor multiplies bytes so many times as fast as float32 on vectors: a loop was left out."""


def test_a_level_has_a_loop_for_each_of_its_instructions(level: str):
    loops = dict(cpu_kernels.peak_loops())
    assert list(loops) == TYPES + (TILES if level == "amx" else [])
    assert loops["int8"] == 2 * loops["int16"] == 4 * loops["float32"] > 0


def test_the_compiler_leaves_no_loop_out():
    peaks = kernel_peaks(threads=1)
    assert all(
        peak < IMPOSSIBLE * peaks["float32"] for name, peak in peaks.items() if name in TYPES
    )


@pytest.mark.parametrize("index", [-1, 5])
def test_a_loop_that_there_is_not_is_an_error(index: int):
    with pytest.raises(ValueError, match="no loop"):
        cpu_kernels.run_peak_loop(index, 1)


def test_without_a_level_there_is_no_loop():
    cpu_kernels.use_level(None)
    with pytest.raises(ValueError, match="no level"):
        cpu_kernels.peak_loops()
