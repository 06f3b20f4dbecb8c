"""The machine: its disk, its clock, its ports, and whether the processes of the box live."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psutil

from edge_medgemma.runtime.clinic.arrivals.space import Space
from edge_medgemma.runtime.clinic.checks.line import CheckLine, fail, ok, warn
from edge_medgemma.runtime.clinic.clock import BUILT_ON, is_clock_set
from edge_medgemma.runtime.clinic.heartbeat import seconds_since_beat
from edge_medgemma.runtime.clinic.instance import is_running
from edge_medgemma.runtime.clinic.settings import ClinicSettings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker_status import is_worker_alive, read_worker_status
from edge_medgemma.runtime.clinic.worklist import audit

PROCESS_WORDS = {
    "node": ("receives and sends", 60.0),
    "worker": ("looks at scans", 1800.0),
    "page": ("serves the page", 60.0),
}
"""What a process does, and for how many seconds a living one may be silent."""

_FAR_FUTURE = timedelta(days=3650)
_BACKWARDS = timedelta(minutes=5)


def check_disk(state: StateFolder, settings: ClinicSettings) -> CheckLine:
    """Room for scans beyond the reserve."""
    free_gb = Space(state, settings.node.reserve_gb).free_bytes() / 1e9
    reserve_gb = settings.node.reserve_gb
    found = f"{free_gb:.1f} GB free, of which {reserve_gb:g} GB are kept free"
    if free_gb < reserve_gb:
        return fail("disk", f"{found}: no scans are received", "free space, or add a disk")
    if free_gb < reserve_gb + 10:
        return warn("disk", found, "free space before the box is full")
    return ok("disk", found)


def check_clock(state: StateFolder, now: datetime | None = None) -> CheckLine:
    """Whether the time can be right, by the program's own age and by what the audit last saw."""
    now = now or datetime.now(UTC)
    shown = f"the clock shows {now:%Y-%m-%d %H:%M} UTC"
    advice = "set it: sudo timedatectl set-time 'YYYY-MM-DD HH:MM:SS', or connect a time server"
    if not is_clock_set(now):
        return fail("clock", f"{shown}, before this program was made: it is not set", advice)
    last = max((entry.at for entry in audit.read(state)), default="")
    if last and now < datetime.fromisoformat(last) - _BACKWARDS:
        return warn("clock", f"{shown}, earlier than the last entry of the audit", advice)
    if now > BUILT_ON + _FAR_FUTURE:
        return warn("clock", f"{shown}, long after this program was made", advice)
    return ok("clock", shown)


def check_processes(state: StateFolder) -> Iterator[CheckLine]:
    """Whether each of the three processes lives."""
    if not is_running(state):
        yield fail(
            "clinic", "the box does not run",
            "start it: sudo systemctl start edge-medgemma-clinic, or 'edge-medgemma clinic'",
        )  # fmt: skip
        return
    for name, (work, longest_s) in PROCESS_WORDS.items():
        silent_s = seconds_since_beat(state, name)
        if silent_s is None:
            yield fail(
                name, f"what {work} does not run",
                f"see why: journalctl -u edge-medgemma-clinic | grep {name}",
            )  # fmt: skip
        elif silent_s > longest_s:
            yield warn(
                name, f"what {work} has not moved for {silent_s:.0f} s", "it is restarted soon"
            )
        else:
            yield ok(name, f"what {work} runs")
    status = read_worker_status(state)
    if status is not None and status.problem and is_worker_alive(state):
        yield fail("worker_problem", status.problem, "")


def check_ports(state: StateFolder, settings: ClinicSettings) -> Iterator[CheckLine]:
    """Whether the ports are free, where the box does not run and hold them itself."""
    if is_running(state):
        return
    node = settings.node
    ports = {"port_dicom": node.port, "port_page": settings.page.port}
    if node.tls_port is not None:
        ports["port_dicom_tls"] = node.tls_port
    for name, port in ports.items():
        problem = _why_not(port)
        if problem:
            yield fail(name, problem, "stop that program, or choose another port in the settings")
        else:
            yield ok(name, f"port {port} is free")
    for first, second in (("port_dicom", "port_page"), ("port_dicom", "port_dicom_tls")):
        if ports.get(first) == ports.get(second):
            yield fail(second, f"port {ports[first]} is set twice", "give each its own port")


def holder_of_port(port: int) -> str:
    """The program that listens on a TCP port; empty where none does or this user may not know."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return ""
    for one in connections:
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
            try:
                return f"{psutil.Process(one.pid).name()} (process {one.pid})"
            except psutil.Error:
                return ""
    return ""


def _why_not(port: int) -> str:
    """Why nothing can listen on a port; empty where it can."""
    try:
        socket.create_server(("", port)).close()
    except PermissionError:
        return f"port {port} may be used by root alone"
    except OSError:
        holder = holder_of_port(port) or "another program"
        return f"port {port} is taken by {holder}"
    return ""
