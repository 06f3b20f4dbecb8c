"""`clinic worker` and `clinic worklist` as processes: what they import, open and print."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.clinic_scans import spool

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker_status import (
    WorkerState,
    WorkerStatus,
    read_worker_status,
)
from edge_medgemma.runtime.clinic.worklist.records import StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist

SETTINGS = """
[site]
demonstration = true
[node]
reserve_gb = 0
[[peers]]
name = "archive"
ae_title = "PACS"
host = "127.0.0.1"
port = 104
results = ["sr", "sc"]
[[health_records]]
name = "records"
fhir_url = "http://127.0.0.1:9"
"""

WATCHED = """
import sys, socket
opened = []
def watch(event, arguments):
    if event == "socket.__new__" and arguments[1] in (socket.AF_INET, socket.AF_INET6, -1):
        opened.append(arguments[1:])
sys.addaudithook(watch)
from edge_medgemma.runtime.cli import cli
try:
    cli.main(sys.argv[1:], standalone_mode=False)
finally:
    network = {"pynetdicom", "starlette", "uvicorn", "requests", "httpx"} & set(sys.modules)
    assert not network, network
    assert not opened, opened
"""
"""Runs a command and fails where it has a network."""


def said(state: StateFolder) -> WorkerState | None:
    status: WorkerStatus | None = read_worker_status(state)
    return None if status is None else status.state


@pytest.mark.command("clinic worker")
def test_the_worker_has_no_network_and_ends_in_the_middle_of_a_look(
    state: StateFolder, worklist: Worklist, bleed: tuple[Path, ...], tmp_path: Path
) -> None:
    settings = tmp_path / "clinic.toml"
    settings.write_text(SETTINGS)
    arguments = ["clinic", "worker", "--state", str(state.path), "--settings", str(settings)]
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, *arguments], stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 600
    while said(state) is not WorkerState.IDLE:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    second = subprocess.run(
        [sys.executable, "-m", "edge_medgemma", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert "a worker already runs" in second.stderr
    key = spool(state, worklist, bleed, "1.2.3.1")
    while not (state.outbox / f"{key}-2").is_dir():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    key = spool(state, worklist, bleed, "1.2.3.2")
    while (row := worklist.study(key)) is None or row.result_number is None:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "PHANTOM" not in errors and "Traceback" not in errors
    row = worklist.study(key)
    assert row is not None and row.state in (
        StudyState.WAITING,
        StudyState.DONE,
    )  # the closer look was put off
    assert said(state) is WorkerState.STOPPED


@pytest.mark.command("clinic worklist")
def test_the_list_is_printed_for_people_and_programs(
    state: StateFolder, worklist: Worklist, bleed: tuple[Path, ...]
) -> None:
    key = spool(state, worklist, bleed[:1], "1.2.3.1")
    arguments = ["clinic", "worklist", "--state", str(state.path)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0
    assert key[:8] in done.output
    assert "not looked at yet" in done.output and "waits for the engine" in done.output
    [row] = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)
    assert (row["key"], row["state"], row["instances"]) == (key, "waiting", 1)


def test_a_folder_without_a_list_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["clinic", "worklist", "--state", str(tmp_path)])
    assert done.exit_code == 1
    assert "there is no worklist" in str(done.exception)
    assert not list(tmp_path.iterdir())
