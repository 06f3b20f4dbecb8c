"""A cluster of two workers, each a process of its own, gives the file that one process gives."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from support.labelled_phantoms import draw_labelled

from edge_medgemma.calibration.evaluation.predictions import PREDICTIONS_NAME
from edge_medgemma.calibration.evaluation.run import RESULTS_NAME
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.errors import ResourceError

DRAWN = [["skull_fracture"], [], ["intracranial_haemorrhage"], [], ["mass_effect"], [], [], []]
COMMAND = [sys.executable, "-c", "from edge_medgemma.runtime.cli import main; main()"]
LIMIT_S = 300


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    draw_labelled(folder, DRAWN)
    return folder


def arguments(scans: Path, out: Path) -> list[str]:
    labels = scans / "labels.csv"
    return ["evaluate", str(scans), "--labels", str(labels), "--out", str(out), "--threads", "1"]


def workers(command: psutil.Process) -> list[psutil.Process]:
    """Processes of the local cluster that hold an engine."""
    found = []
    for one in command.children(recursive=True):
        try:
            if "MapWorker" in " ".join(one.cmdline()):
                found.append(one)
        except psutil.Error:
            continue
    return found


def test_a_worker_that_is_killed_costs_nothing(scans: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, arguments(scans, tmp_path / "one"))
    assert done.exit_code == 0, done.output
    running = subprocess.Popen(
        [*COMMAND, *arguments(scans, tmp_path / "two"), "--ray", "local"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    results, deadline_s = tmp_path / "two" / RESULTS_NAME, time.monotonic() + LIMIT_S
    while not results.is_file() or results.read_bytes().count(b"\n") < 3:
        assert time.monotonic() < deadline_s and running.poll() is None
        time.sleep(0.1)
    found = workers(psutil.Process(running.pid))
    assert len(found) == 2
    found[0].kill()
    _, errors = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 0, errors
    expected = (tmp_path / "one" / PREDICTIONS_NAME).read_bytes()
    assert (tmp_path / "two" / PREDICTIONS_NAME).read_bytes() == expected
    assert results.read_bytes().count(b"\n") == 1 + len(DRAWN)


def test_no_cluster_is_said_in_one_line(scans: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [*arguments(scans, tmp_path / "out"), "--ray", "auto"])
    assert isinstance(done.exception, ResourceError)
    assert "no Ray cluster can be used at 'auto'" in str(done.exception)
