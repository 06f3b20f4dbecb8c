"""Whether a wheel, or the package installed from one, has the kernels of every level of its machine.

An extension is optional where a user installs from sources: a wheel without it would go unnoticed.
"""

import platform
import subprocess
import sys
import zipfile
from pathlib import Path

LEVELS = {"x86_64": ["amx", "avx512", "avx_vnni", "avx2"], "aarch64": ["i8mm", "dotprod"]}
LIBRARY = "edge_medgemma/runtime/kernels/cpu_kernels.abi3.so"


def check_file(wheel: Path) -> None:
    """A wheel of any machine: its tags, and the names of levels in its library."""
    _, _, python, abi, platforms = wheel.stem.split("-")
    assert (python, abi) == ("cp311", "abi3"), wheel.name
    (machine,) = [
        name for name in LEVELS if platforms.startswith("manylinux") and platforms.endswith(name)
    ]
    with zipfile.ZipFile(wheel) as files:
        library = files.read(LIBRARY)
    missing = [level for level in LEVELS[machine] if level.encode() + b"\0" not in library]
    assert not missing, f"{wheel.name} lacks {missing}"


def check_installed() -> None:
    """The package that this interpreter imports: levels that were compiled, and a triage that computes."""
    from edge_medgemma.runtime.kernels import cpu_kernels

    assert cpu_kernels.compiled_levels() == LEVELS[platform.machine()]
    subprocess.run([sys.executable, "-P", "-m", "edge_medgemma", "doctor"], check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        check_file(Path(sys.argv[1]))
    else:
        check_installed()
