"""The whole box as a clinic runs it: `edge-medgemma clinic`, on ports of loopback."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from support.clinic_peers import DicomAddress, free_port

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import StudyRow
from edge_medgemma.runtime.clinic.worklist.store import Worklist

AE_TITLE = "EDGEMEDGEMMA"
PROCESSES = ("node", "worker", "page")
_READY_S = 120.0


@dataclass(slots=True)
class ClinicBox:
    """A box with the demo engine, which may be killed and started again on its state folder."""

    folder: Path
    settings: str = ""
    """Further lines of the settings, tables first."""
    process: subprocess.Popen[bytes] | None = None
    address: DicomAddress = field(init=False)
    page_port: int = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.address = DicomAddress(AE_TITLE, free_port())
        self.page_port = free_port()
        self.settings_file.write_text(
            "[site]\ndemonstration = true\n"
            f"[node]\nport = {self.address.port}\nreserve_gb = 0\nreleased_quiet_s = 2\n"
            f"quiet_s = 10\ngive_up_s = 30\n[page]\nport = {self.page_port}\n{self.settings}"
        )

    @property
    def settings_file(self) -> Path:
        """Its settings."""
        return self.folder / "clinic.toml"

    @property
    def state(self) -> StateFolder:
        """Its state folder."""
        return StateFolder(self.folder / "state")

    @property
    def log(self) -> Path:
        """What all its processes printed."""
        return self.folder / "box.log"

    def start(self) -> dict[str, Any]:
        """Start all and wait until it says where it is reached; what it says."""
        command = [sys.executable, "-m", "edge_medgemma", "clinic", "--json"]
        command += ["--state", str(self.state.path), "--settings", str(self.settings_file)]
        output = self.folder / "started.json"
        with self.log.open("ab") as log, output.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=log, env={**os.environ, "LC_ALL": "C.UTF-8"}
            )
        end = time.monotonic() + _READY_S
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(ValueError):
                started: dict[str, Any] = json.loads(output.read_text())
                return started
            time.sleep(0.1)
        raise RuntimeError(f"the box did not start: {self.log.read_text()[-2000:]}")

    def stop(self) -> int:
        """End it politely; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)

    def kill(self, name: str) -> bool:
        """SIGKILL one of `PROCESSES`; False where it does not run just now."""
        found = self._children(name)
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return bool(found)

    def cut_power(self) -> None:
        """SIGKILL all of it at once."""
        assert self.process is not None
        children = self._children(*PROCESSES)
        self.process.kill()
        self.process.wait()
        for process in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(children, timeout=10)

    def rows(self) -> tuple[StudyRow, ...]:
        """The list, as `edge-medgemma clinic worklist` has it."""
        with Worklist.open(self.state) as worklist:
            return worklist.studies()

    def _children(self, *names: str) -> Sequence[psutil.Process]:
        assert self.process is not None
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    words = child.cmdline()
                    if "clinic" in words and words[words.index("clinic") + 1] in names:
                        found.append(child)
        return found
