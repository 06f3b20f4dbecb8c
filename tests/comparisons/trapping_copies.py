"""Copies of libraries in which CPUID is UD2, which `older_cpu.c` answers where CPUID cannot fault.

They stand for the libraries in a mount namespace of a program and its children.
"""

import re
import shlex
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from edge_medgemma.runtime.kernels.level import cpu_kernels

CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"
PACKAGES = ("numpy", "numpy.libs", "onnxruntime", "openvino", "tokenizers")
"""Folders of the environment whose libraries choose code for the processor as they run."""


def command_with_copies(folder: Path) -> list[str]:
    """Words before a program that is to load copies instead; those that are missing are written.

    Raises:
        OSError: objdump or unshare is missing.
        subprocess.CalledProcessError: one of them failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    binds = []
    for number, library in enumerate(_libraries()):
        copy = folder / f"{number}-{library.name}"
        if not copy.exists() or copy.stat().st_mtime < library.stat().st_mtime:
            copy.write_bytes(trapping(library))
        binds.append(f"mount --bind {shlex.quote(str(copy))} {shlex.quote(str(library))}")
    script = " && ".join([*binds, 'exec "$@"'])
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def trapping(library: Path) -> bytes:
    """The file with UD2 at every CPUID that a disassembler finds: those bytes stand in constants too."""
    data = bytearray(library.read_bytes())
    segments = [
        [int(number, 16) for number in found]
        for found in re.findall(
            r"^ +LOAD +(0x\w+) (0x\w+) 0x\w+ (0x\w+)",
            _output("readelf", "-lW", str(library)),
            re.MULTILINE,
        )
    ]
    for found in re.findall(
        r"^ *(\w+):.*\tcpuid", _output("objdump", "-d", str(library)), re.MULTILINE
    ):
        address = int(found, 16)
        place = next(
            address - start + offset
            for offset, start, size in segments
            if start <= address < start + size
        )
        if data[place : place + 2] != CPUID:
            raise ValueError(f"'{library}' has no CPUID at {place}")
        data[place : place + 2] = UD2
    return bytes(data)


def _libraries() -> Iterator[Path]:
    """Those of our environment with the instruction, and our own."""
    site = Path(sysconfig.get_path("platlib"))
    for package in PACKAGES:
        for library in sorted((site / package).rglob("*.so*")):
            if CPUID in library.read_bytes():
                yield library
    if cpu_kernels:
        yield Path(cpu_kernels.__file__)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
