"""Nothing leaves the machine: the libraries queue nothing that could."""

import os
import subprocess
import sys

from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.store.places import Place

OPENS_A_GRAPH = """
import sys
from pathlib import Path
from edge_medgemma.runtime.backends.onnxruntime.session import OrtVision
OrtVision(Path(sys.argv[1]), 1)
"""


def test_onnxruntime_keeps_no_events(tmp_path):
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | places
    command = [sys.executable, "-c", OPENS_A_GRAPH, str(BUILTIN_ENGINE)]
    subprocess.run(command, env=environment, check=True)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in kept if path.parent.name != Place.TRIALS] == []
