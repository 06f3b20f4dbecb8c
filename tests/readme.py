"""The help texts in README.md are generated: `make readme` writes them, a test compares them."""

import re
import subprocess
import sys
from pathlib import Path

from edge_medgemma.runtime.cli import COMMANDS

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"(<!-- help: (\w+) -->\n```text\n).*?(```\n)", re.DOTALL)


def help_text(command: str) -> str:
    """What `edge-medgemma COMMAND --help` prints to a pipe."""
    # A process of its own: click remembers in a command how it was first called.
    arguments = [sys.executable, "-m", "edge_medgemma", command, "--help"]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def with_current_help(text: str) -> str:
    """The README with every help block as the commands print it now."""
    return BLOCK.sub(lambda m: m[1] + help_text(m[2]) + m[3], text)


def documented_commands(text: str) -> set[str]:
    """Names of the commands that have a help block."""
    return {match[2] for match in BLOCK.finditer(text)}


ALL_COMMANDS = set(COMMANDS)

if __name__ == "__main__":
    README.write_text(with_current_help(README.read_text(encoding="utf-8")), encoding="utf-8")
