"""Every kernel is the formula on every processor it is for: this one, and Arm's under an emulator.

The same program of C runs on each, without onnxruntime.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from edge_medgemma.runtime.kernels.level import cpu_kernels

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "runtime" / "kernels"
SOURCES = [KERNELS / "level.c", *sorted(KERNELS.glob("levels/*.c")), *sorted(HERE.glob("*.c"))]

EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
CROSS_COMPILER = ["aarch64-linux-gnu-gcc", "-static"]

LEVELS = {"cortex-a72": [], "cortex-a76": ["dotprod"], "max": ["i8mm", "dotprod"]}
"""Emulated processor -> levels that it must be found to have."""


def build(compiler: list[str], folder: Path) -> Path:
    """The program, made by a compiler that finds nothing to warn of."""
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no {compiler[0]}: tests/support/install_peers.sh installs it")
    program = folder / "check"
    options = ["-O2", "-Wall", "-Wextra", "-Werror", f"-I{KERNELS}"]
    command = [*compiler, *options, *map(str, SOURCES), "-lm", "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return program


@pytest.fixture(scope="module")
def arm_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if EMULATOR is None:
        pytest.skip("no qemu-aarch64: tests/support/install_peers.sh installs it")
    return build(CROSS_COMPILER, tmp_path_factory.mktemp("arm"))


def levels_checked(command: list[str]) -> list[str]:
    """Levels of which the program found every kernel right."""
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    return list(dict.fromkeys(line.split()[0] for line in run.stdout.splitlines()))


def test_kernels_of_this_processor(tmp_path):
    checked = levels_checked([str(build(["gcc"], tmp_path))])
    if cpu_kernels is not None:
        assert checked == cpu_kernels.claimed_levels()


@pytest.mark.parametrize("processor", LEVELS)
def test_kernels_of_an_arm_processor(arm_program, processor):
    assert levels_checked([EMULATOR, "-cpu", processor, str(arm_program)]) == LEVELS[processor]
