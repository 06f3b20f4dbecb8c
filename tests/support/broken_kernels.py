"""A copy of the runtime whose fastest level of kernels fails at decode in the way of $BROKEN."""

import re
import shutil
import subprocess
import sysconfig
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

WAYS = {
    "illegal": """__asm__ volatile("ud2");""",
    "wrong": "((DecodeStep *)step)->out[0] += 1;",
    "endless": """for (;;) __asm__ volatile("");""",
}
"""What the end of a decode step does besides; x86-64."""

BROKEN = """
#include <stdlib.h>
static void good_attend(void *step, size_t part) { GOOD.attend(step, part); }
static void good_begin(const DecodeStep *step) { GOOD.begin(step); }
static void broken_end(const DecodeStep *step) {
  const char *way = getenv("BROKEN");
  GOOD.end(step);
  if (!way || strcmp(LEVEL_NAME, BROKEN_LEVEL)) return;
"""


def copy_with_broken_kernels(folder: Path, level: str, cpu_limit_s: int) -> None:
    """Make `folder`, for PYTHONPATH, with a package in which the level is broken.

    Args:
        folder: is made
        level: that breaks
        cpu_limit_s: after which a trial that does not end is given up
    """
    package = folder / "edge_medgemma"
    shutil.copytree(ROOT / "package", package)
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "runtime", package / "runtime", ignore=ignored)
    trial = package / "runtime/trial.py"
    text, changes = re.subn(
        "CPU_LIMIT_S = .*", f"CPU_LIMIT_S = {cpu_limit_s}", trial.read_text(), count=1
    )
    assert changes == 1
    trial.write_text(text)
    _break(package / "runtime/kernels/levels/level.inc")
    _compile(folder, package, level)


def _break(source: Path) -> None:
    text = source.read_text()
    found = re.search(r"\.decode = &(\w+)", text)
    assert found, "the table of a level has another form"
    ways = "".join(f'  if (!strcmp(way, "{way}")) {{ {code} }}\n' for way, code in WAYS.items())
    broken = BROKEN.replace("GOOD", found[1]) + ways + "}\n"
    broken += "static const DecodeKernel broken = {good_begin, good_attend, broken_end};\n"
    text = text.replace(found[0], ".decode = &broken", 1)
    source.write_text(text.replace("const Level LEVEL", f"{broken}const Level LEVEL", 1))


def _compile(folder: Path, package: Path, level: str) -> None:
    """The extension as `pyproject.toml` lists it, quickly rather than for speed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    modules = project["tool"]["setuptools"]["ext-modules"]
    (sources,) = (one["sources"] for one in modules if one["name"].endswith(".cpu_kernels"))
    flags = ["-O1", "-fPIC", "-fvisibility=hidden", "-pthread", f'-DBROKEN_LEVEL="{level}"']
    flags.append(f"-I{sysconfig.get_paths()['include']}")

    def compiled(source: str) -> str:
        output = folder / (source.replace("/", "_") + ".o")
        command = ["gcc", *flags, "-c", source, "-o", str(output)]
        subprocess.run(command, cwd=package, check=True)
        return str(output)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    library = package / "runtime/kernels/cpu_kernels.abi3.so"
    subprocess.run(["gcc", "-shared", "-pthread", *objects, "-lm", "-o", str(library)], check=True)
