"""The machine that was measured; nothing that names its owner."""

import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from edge_medgemma.runtime.host import processor_name, usable_cores
from edge_medgemma.runtime.thermal import HOST

LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "numpy", "pydicom")

QUERY_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Machine:
    """Hardware, its power mode, and the software that did the work."""

    processor: str
    architecture: str
    cores: int
    """That this process may use."""
    memory_bytes: int
    system: str
    jetson: str
    """L4T release; empty elsewhere."""
    power_mode: str
    """cpufreq governor or nvpmodel; `not available` where neither is told."""
    python: str
    libraries: dict[str, str]


def read_machine(root: Path = HOST) -> Machine:
    """The machine whose file tree begins at `root`."""
    return Machine(
        processor=processor_name(root),
        architecture=platform.machine(),
        cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
        jetson=_first_line(root / "etc/nv_tegra_release"),
        power_mode=_power_mode(root),
        python=platform.python_version(),
        libraries=_libraries(),
    )


def _power_mode(root: Path) -> str:
    if root == HOST and (program := shutil.which("nvpmodel")):
        try:
            done = subprocess.run(
                [program, "-q"], capture_output=True, text=True, check=False,
                timeout=QUERY_TIMEOUT_S,
            )  # fmt: skip
            if done.returncode == 0:
                return "nvpmodel " + " ".join(done.stdout.split())
        except (OSError, subprocess.TimeoutExpired):
            pass
    governors = {
        _first_line(path)
        for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    }
    return "governor " + ", ".join(sorted(governors)) if governors else "not available"


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""
