"""The supervisor with real processes: restarted, ended together, one clinic a state folder."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.supervisor import Child, Supervisor, _start
from edge_medgemma.runtime.errors import ResourceError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="process groups of Linux")

SERVE = """
import os, pathlib, signal, socket, sys, time
folder = pathlib.Path(sys.argv[1])
with (folder / (sys.argv[2] + ".pids")).open("a") as file:
    file.write(f"{os.getpid()}\\n")
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[2] == "served":
    listener = socket.create_server(("127.0.0.1", int(sys.argv[3])))
    print("a line of the child")
time.sleep(600)
"""

SUPERVISE = """
import json, pathlib, sys
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.supervisor import Child, Supervisor, _start
folder, port, names = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
state = StateFolder(folder / "state")
state.create()
children = [
    Child(name, [sys.executable, str(folder / "serve.py"), str(folder), name, str(port)])
    for name in names
]
Supervisor(
    state, children, [port], lambda: print("up", flush=True),
    lambda line: print(line, file=sys.stderr, flush=True), grace_s=1.0,
).run()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def pids(folder: Path, name: str) -> list[int]:
    path = folder / f"{name}.pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def supervised(folder: Path, *names: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A supervisor in a process of its own, and its end with the block."""
    (folder / "serve.py").write_text(SERVE)
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(folder), str(free_port()), *names],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_what_ends_is_started_again_and_all_stop_on_sigterm(tmp_path: Path) -> None:
    with supervised(tmp_path, "served", "other") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"  # and no child's line before it
        wait_for(lambda: pids(tmp_path, "other"))  # "up" is of the port alone
        os.kill(pids(tmp_path, "other")[0], signal.SIGKILL)
        wait_for(lambda: len(pids(tmp_path, "other")) == 2)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "other was ended by signal 9; it is started again in 1 s" in log
        assert "served" not in log
        assert not any(map(is_running, pids(tmp_path, "served") + pids(tmp_path, "other")))


def test_what_ignores_sigterm_is_ended_after_the_grace(tmp_path: Path) -> None:
    with supervised(tmp_path, "served", "stubborn") as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        wait_for(lambda: pids(tmp_path, "stubborn"))
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "stubborn did not stop in 1 s and is ended" in log
        assert not is_running(pids(tmp_path, "stubborn")[0])


def test_children_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    with supervised(tmp_path, "served", "stubborn") as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        wait_for(lambda: pids(tmp_path, "stubborn"))
        process.kill()
        process.wait()
        ours = pids(tmp_path, "served") + pids(tmp_path, "stubborn")
        wait_for(lambda: not any(map(is_running, ours)))


def test_a_second_clinic_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with supervised(tmp_path, "served") as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        second = Supervisor(StateFolder(tmp_path / "state"), [], [], lambda: None, print)
        with pytest.raises(ResourceError, match=rf"already runs on .* \(process {process.pid}\)"):
            second.run()


def test_systemd_is_told_of_start_life_and_end(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(30)
        with supervised(tmp_path, "served", NOTIFY_SOCKET=str(path)) as process:
            heard: list[bytes] = []
            while not (b"READY=1" in heard and b"WATCHDOG=1" in heard):
                heard.append(manager.recv(64))
            served = psutil.Process(pids(tmp_path, "served")[0])
            assert "NOTIFY_SOCKET" not in served.environ()
            process.send_signal(signal.SIGTERM)
            while heard[-1] != b"STOPPING=1":
                heard.append(manager.recv(64))


def test_the_pause_before_a_restart_grows_and_is_forgotten_after_a_steady_run(
    tmp_path: Path,
) -> None:
    now, lines = [0.0], []
    state = StateFolder(tmp_path)
    state.create()
    child = Child("node", [sys.executable, "-c", "raise SystemExit(3)"])
    supervisor = Supervisor(state, [child], [], lambda: None, lines.append, clock=lambda: now[0])
    pauses = []
    with open(os.devnull) as lock:
        for run_s in (0, 0, 0, 0, 0, 0, 0, 100):
            supervisor._look(lock.fileno())
            assert child.process is not None
            child.process.wait()
            now[0] += run_s
            supervisor._look(lock.fileno())
            pauses.append(child.start_at_s - now[0])
            now[0] = child.start_at_s
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 1]
    assert lines[0] == "node ended with status 3; it is started again in 1 s"


def test_the_engine_leaves_the_cores_to_what_receives(tmp_path: Path) -> None:
    niceness = {}
    with open(os.devnull) as lock:
        for name in ("node", "worker"):
            child = Child(name, [sys.executable, "-c", "import os; raise SystemExit(os.nice(0))"])
            process = _start(child, lock.fileno())
            niceness[name] = process.wait()
    assert niceness["worker"] - niceness["node"] == 10


def test_what_beats_no_more_is_ended_and_what_never_beat_is_left(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.create()
    beats_once = (
        "import sys, time, pathlib\n"
        "from edge_medgemma.runtime.clinic.heartbeat import beat\n"
        "from edge_medgemma.runtime.clinic.state_folder import StateFolder\n"
        "beat(StateFolder(pathlib.Path(sys.argv[1])), 'node')\n"
        "time.sleep(600)"
    )
    hangs = Child("node", [sys.executable, "-c", beats_once, str(tmp_path)], silence_s=0.1)
    mute = Child("page", [sys.executable, "-c", "import time; time.sleep(600)"], silence_s=0.1)
    lines: list[str] = []
    supervisor = Supervisor(state, [hangs, mute], [1], lambda: None, lines.append, grace_s=1)
    try:
        with open(os.devnull) as lock:

            def is_restarted() -> bool:
                supervisor._look(lock.fileno())
                return any("started again" in line for line in lines)

            wait_for(is_restarted)
        assert mute.process is not None and mute.process.poll() is None
        assert re.fullmatch(r"node has not moved for \d+ s and is ended", lines[0])
        assert lines[1] == "node was ended by signal 9; it is started again in 1 s"
    finally:
        supervisor._stop()


@pytest.mark.command("clinic")
@pytest.mark.command("clinic page")
def test_the_box_comes_up_whole_prints_its_addresses_and_ends_on_sigterm(tmp_path: Path) -> None:
    settings = tmp_path / "clinic.toml"
    port, page_port = free_port(), free_port()
    settings.write_text(
        f"[site]\ndemonstration = true\n[node]\nport = {port}\n[page]\nport = {page_port}\n"
    )
    command = [sys.executable, "-m", "edge_medgemma", "clinic", "--json", "--settings", settings]
    process = subprocess.Popen(
        [*command, "--state", tmp_path / "state"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ours = [psutil.Process(process.pid)]
    try:
        assert process.stdout is not None
        decoder, text = json.JSONDecoder(), ""
        while not text.endswith("}\n") or text.count("{") != text.count("}"):
            line = process.stdout.readline()
            assert line, "it ended before it was up"
            text += line
        started = decoder.decode(text)
        assert started["address"]["ae_title"] == "EDGEMEDGEMMA"
        assert started["address"]["page_urls"] == [f"http://127.0.0.1:{page_port}/"]
        assert re.fullmatch("[0-9]{8}", started["setup_code"])
        ours += ours[0].children(recursive=True)
        assert len(ours) >= 4
        process.send_signal(signal.SIGTERM)
        output, log = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, ""), log
        assert "started again" not in log and "Traceback" not in log
        wait_for(lambda: not any(is_running(one.pid) for one in ours))
    finally:
        process.kill()
        process.communicate()


def test_a_port_that_another_program_has_is_named_with_the_program(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = tmp_path / "clinic.toml"
        settings.write_text(f"[node]\nport = {port}\n[page]\nport = {free_port()}\n")
        command = [sys.executable, "-m", "edge_medgemma", "clinic", "--settings", settings]
        process = subprocess.Popen(
            [*command, "--state", tmp_path / "state"], stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert re.match(rf"port {port} is taken by \S+ \(process {os.getpid()}\); stop", line)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
            assert process.returncode in (0, 143)  # 143: before it waited for signals
        finally:
            process.kill()
            process.communicate()
