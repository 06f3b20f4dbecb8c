"""Levels of processors that both sides are shown: what this machine has, or an older processor.

An older one is this machine with CPUID answered by `older_cpu.c`, which is loaded into every process
of ours and of the peer. Peers that are compiled for a processor are compiled for the level.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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

    def variables(self, folder: Path) -> dict[str, str]:
        """Environment variables of a program that is shown this level.

        Args:
            folder: where the library is compiled with its first use

        Raises:
            OSError: this machine cannot make CPUID fault, or has no gcc.
            subprocess.CalledProcessError: gcc failed.
        """
        if self.cpu is None:
            return {}
        if "cpuid_fault" not in Path("/proc/cpuinfo").read_text(encoding="ascii").split():
            raise OSError("the processor lacks cpuid_fault: only --level native is measured here")
        return {"OLDER_CPU": self.cpu, "LD_PRELOAD": str(_library(folder))}


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
