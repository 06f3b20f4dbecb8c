"""`edge-medgemma clinic page`: the process that serves the page; `clinic` starts it."""

import json
import subprocess
import sys
from pathlib import Path

import click

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.commands.clinic.options import (
    lan_option,
    settings_option,
    state_option,
)

CHECK_LIMIT_S = 180


@click.command(epilog="Example: edge-medgemma clinic page --state /tmp/clinic")
@state_option
@settings_option
@lan_option
def command(state: StateFolder, settings_file: Path | None, lan: bool) -> None:
    """Serve the page alone; 'clinic' without a command starts it with the others."""
    from edge_medgemma.runtime.clinic.page.page_process import run_page
    from edge_medgemma.runtime.clinic.page.setup_view import CheckedLine
    from edge_medgemma.runtime.clinic.settings import read_settings

    settings = read_settings(settings_file)
    state.create()
    words = [sys.executable, "-m", "edge_medgemma", "clinic", "check", "--json"]
    words += ["--state", str(state.path), *(["--lan"] if lan else [])]
    words += ["--settings", str(settings_file)] if settings_file else []

    def check() -> list[CheckedLine]:
        """In a process of its own: what it imports would stay in the page's memory."""
        done = subprocess.run(words, capture_output=True, check=False, timeout=CHECK_LIMIT_S)
        lines = json.loads(done.stdout or b"[]")
        return [
            CheckedLine(line["status"] == "ok", line["finding"], line["advice"]) for line in lines
        ]

    run_page(state, settings, is_lan=lan, check=check)
