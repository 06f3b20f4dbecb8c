"""Print what the clinic's box needs of a package index, for a machine that is not this one.

python box/requirements.py aarch64 3.12
"""

import sys
import tomllib
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

EXTRAS = ("cpu", "clinic", "exchange", "pdf")
JETSON_EXTRA = "tensorrt"
"""TensorRT itself is JetPack's; the bindings of CUDA are not."""


def requirements(machine: str, python_version: str) -> list[str]:
    """Requirements of the package and its extras whose markers hold there, and what builds it."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    extras = (*EXTRAS, JETSON_EXTRA) if machine == "aarch64" else EXTRAS
    lines = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in extras:
        lines += project["project"]["optional-dependencies"][extra]
    there = {
        "platform_machine": machine, "python_version": python_version, "sys_platform": "linux",
        "platform_system": "Linux", "os_name": "posix",
    }  # fmt: skip
    found = []
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(there):
            requirement.marker = None
            found.append(str(requirement))
    return found


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1], sys.argv[2])))
