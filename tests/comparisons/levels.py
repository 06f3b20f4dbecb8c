"""Levels of processors that both sides are shown: what this machine has, or an older processor.

An older one is this machine with CPUID answered by `older_cpu.c`, which is loaded into every process
of ours and of the peer. Peers that are compiled for a processor are compiled for the level. Where CPUID
cannot fault, as on AMD, copies of our libraries trap; other peers than those then see all of this machine.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comparisons.trapping_copies import command_with_copies

from edge_medgemma.runtime.kernels.level import cpu_kernels

SOURCE = Path(__file__).with_name("older_cpu.c")

LAPTOP = "-DGGML_NATIVE=OFF -DGGML_OPENMP=ON -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON"
LAPTOP += " -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
SERVER = " -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON"


@dataclass(frozen=True, slots=True)
class Level:
    """Instructions that programs are shown."""

    name: str
    """As our kernels name it; `native` is all that this machine has."""
    cpu: str | None
    """`OLDER_CPU` of older_cpu.c"""
    cmake: str
    """Options that llama.cpp is compiled with."""

    def command(self, folder: Path) -> list[str]:
        """Words before a program that it and its children are shown this level with.

        None for `native`, and where this processor is of the level.

        Args:
            folder: where libraries are written with its first use

        Raises:
            OSError: this machine has no gcc, objdump or unshare.
            subprocess.CalledProcessError: one of them failed.
        """
        claimed = cpu_kernels.claimed_levels() if cpu_kernels else []
        if self.cpu is None or self.name in claimed[:1]:
            return []
        shown = [f"OLDER_CPU={self.cpu}", f"LD_PRELOAD={_library(folder)}"]
        if "cpuid_fault" in Path("/proc/cpuinfo").read_text(encoding="ascii").split():
            return ["env", *shown]
        copies = command_with_copies(folder.resolve() / "trapping")
        return [*copies, "env", "OLDER_CPU_TRAPS=1", *shown]


LEVELS: Mapping[str, Level] = {
    level.name: level
    for level in (
        Level("native", None, "-DGGML_NATIVE=ON -DGGML_OPENMP=ON"),
        Level("avx512", "avx512", LAPTOP + SERVER),
        Level("avx_vnni", "avx_vnni", f"{LAPTOP} -DGGML_AVX_VNNI=ON"),
        Level("avx2", "avx2", LAPTOP),
    )
}
NATIVE = LEVELS["native"]


def _library(folder: Path) -> Path:
    path = folder.resolve() / "older_cpu.so"
    if not path.exists() or path.stat().st_mtime < SOURCE.stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(partial), "-ldl"]
        subprocess.run(command, check=True)
        partial.rename(path)
    return path
