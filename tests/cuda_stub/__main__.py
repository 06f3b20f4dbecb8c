"""Build the hollow CUDA: `python -m cuda_stub LIBRARY INCLUDE FOLDER`.

LIBRARY is onnxruntime's libonnxruntime_providers_cuda.so, INCLUDE NVIDIA's headers, FOLDER gets the
libraries that LIBRARY needs. What cudart.c and cublas.c do not define succeeds and does nothing.
"""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = {"libcudart.so.13": HERE / "cudart.c", "libcublas.so.13": HERE / "cublas.c"}
UNVERSIONED = {"cuTensorMapEncodeTiled": "libcuda.so.1"}
EMPTY = ("libcublasLt.so.13", "libcurand.so.10", "libcuda.so.1")


def main(library: Path, include: Path, folder: Path) -> None:
    """Compile one shared library for each that `library` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = _undefined(library)
    for name in {*needed, *SOURCES, *EMPTY}:
        _compile(name, needed[name], include, folder)


def _undefined(library: Path) -> dict[str, set[str]]:
    """Functions that a library takes from CUDA's, by the library they are in."""
    command = ["nm", "-D", "--undefined-only", str(library)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, set[str]] = defaultdict(set)
    for line in listing.splitlines():
        symbol, _, version = line.split()[-1].partition("@")
        origin = UNVERSIONED.get(symbol, version)
        if origin.startswith(("libcu",)):
            found[origin].add(symbol)
    return found


def _compile(name: str, needed: set[str], include: Path, folder: Path) -> None:
    source = SOURCES.get(name)
    written = source.read_text(encoding="utf-8") if source else ""
    missing = sorted(symbol for symbol in needed if f"{symbol}(" not in written)
    stubs = folder / f"{name}.c"
    stubs.write_text("".join(f"int {symbol}() {{ return 0; }}\n" for symbol in missing))
    versions = folder / f"{name}.map"
    versions.write_text(f"{name} {{ global: *; }};\n")
    output = ["-o", str(folder / name), f"-Wl,-soname,{name}"]
    if name != "libcuda.so.1":
        output.append(f"-Wl,--version-script={versions}")
    sources = [str(stubs), *([str(source)] if source else [])]
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", f"-I{include}", *sources, *output]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
