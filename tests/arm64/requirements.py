"""Print what a device installs: the base dependencies and the `cpu` extra, one a line."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())
base = project["project"]["dependencies"]
print(*base, *project["project"]["optional-dependencies"]["cpu"], sep="\n")
