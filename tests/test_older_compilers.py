"""A compiler that does not know an instruction set leaves its kernels out instead of failing."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

LEVELS = Path(__file__).resolve().parents[1] / "runtime/kernels/levels"

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None or platform.machine() != "x86_64", reason="needs gcc on x86-64"
)


@pytest.mark.parametrize(
    ("compiler", "left_out"),
    [(8, {"amx", "avx512", "avx_vnni", "avx2"}), (10, {"amx", "avx_vnni"}), (11, set())],
)
def test_levels_of_a_compiler(compiler: int, left_out: set[str]) -> None:
    """What the preprocessor of a gcc that calls itself older makes of each level's table."""
    found = set()
    for level in ("amx", "avx512", "avx_vnni", "avx2"):
        words = ["gcc", "-E", "-U__GNUC__", f"-D__GNUC__={compiler}", str(LEVELS / f"{level}.c")]
        source = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        if ".decode =" not in source:
            found.add(level)
    assert found == left_out
