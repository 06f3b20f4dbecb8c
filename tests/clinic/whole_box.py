"""The whole box as a person starts it: one command, three processes below it."""

import contextlib
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
from support.clinic_peers import DicomAddress

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import StudyRow
from edge_medgemma.runtime.clinic.worklist.store import Worklist


@dataclass(slots=True)
class Box:
    """`edge-medgemma clinic` on a state folder."""

    state: StateFolder
    settings: Path
    address: DicomAddress
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "edge_medgemma", "clinic", "--state", str(self.state.path)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "--settings", str(self.settings)], stdout=output, stderr=output
            )

    def kill(self, name: str) -> bool:
        """SIGKILL the `node`, the `worker` or the `page`; False where it does not run just now."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                words = child.cmdline()
                if "clinic" in words and words[words.index("clinic") + 1 :][:1] == [name]:
                    child.kill()
                    return True
        return False

    def cut_the_power(self) -> int:
        """Kill every process at once; how many there were."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=30)
        self.process.wait()
        return len(processes)

    def stop(self) -> tuple[int, int]:
        """End it politely: its exit status, and processes that are left."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        return status, len(psutil.wait_procs(children, timeout=5)[1])

    def rows(self) -> tuple[StudyRow, ...]:
        with Worklist.open(self.state) as worklist:
            return worklist.studies()
