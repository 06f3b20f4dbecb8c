"""A process that triages study after study stays as large as it was."""

import subprocess
import sys
from pathlib import Path

STUDIES = 20
SETTLED_AFTER = 5
"""Studies until buffers, pools and imports are there."""
MOST_GROWTH = 0.02

SCRIPT = """
import gc, sys
from pathlib import Path
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.triage.chat_session import open_scan
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.triage_scan import triage_scan

scan, controls, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
options = TriageOptions(slices=4, baseline_folder=controls)
with Engine.open(BUILTIN_ENGINE, threads=2) as engine:
    for _ in range(count):
        (study,) = triage_scan(engine, scan, options).studies
        assert study.findings
        list(open_scan(engine, scan, options).ask("Is there a haemorrhage?", Sampling(), 16))
        gc.collect()
        status = Path("/proc/self/status").read_text()
        print(status.split("VmRSS:")[1].split()[0], flush=True)
"""


def test_twenty_studies_take_no_more_memory_than_five(phantom_scan: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        str(phantom_scan),
        str(tmp_path / "controls"),
        str(STUDIES),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    resident = [int(line) for line in done.stdout.split()]
    growth = resident[-1] / resident[SETTLED_AFTER - 1] - 1
    assert growth < MOST_GROWTH, f"{growth:.1%} more; KiB after each study: {resident}"
