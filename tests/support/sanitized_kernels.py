"""The compiled kernels built with AddressSanitizer and UndefinedBehaviorSanitizer, for their tests.

A plugin of pytest: `make kernels-asan` preloads the sanitizers and runs the tests with it.
"""

import subprocess
import sys
import sysconfig
import tomllib
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path

from edge_medgemma.runtime import kernels

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/kernels-asan"
FLAGS = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
FLAGS += ["-fno-sanitize-recover=all", "-shared", "-fPIC", "-fvisibility=hidden"]


def build(module: str, sources: list[str]) -> Path:
    """Compile one extension module of pyproject.toml."""
    BUILD.mkdir(parents=True, exist_ok=True)
    library = BUILD / f"{module.rpartition('.')[2]}.abi3.so"
    include = f"-I{sysconfig.get_paths()['include']}"
    # without what is preloaded for this process: the compiler has leaks of its own
    command = ["env", "-u", "LD_PRELOAD", "gcc", *FLAGS, include, *sources, "-o", str(library)]
    subprocess.run(command, cwd=ROOT, check=True)
    return library


def load(module: str, library: Path) -> None:
    """Have every later import of the module get the library."""
    loader = ExtensionFileLoader(module, str(library))
    made = module_from_spec(ModuleSpec(module, loader, origin=str(library)))
    loader.exec_module(made)
    sys.modules[module] = made
    setattr(kernels, module.rpartition(".")[2], made)


project = tomllib.loads((ROOT / "pyproject.toml").read_text())
for extension in project["tool"]["setuptools"]["ext-modules"]:
    load(extension["name"], build(extension["name"], extension["sources"]))

# it loads its libraries in a way that the sanitizers do not allow; tests of it are then skipped
sys.modules["openvino"] = None  # type: ignore[assignment]
