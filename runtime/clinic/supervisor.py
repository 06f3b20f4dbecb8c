"""Keeps the clinic's processes running: one that ends is started again, all end together."""

import contextlib
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from edge_medgemma.runtime.clinic.heartbeat import forget_beat, seconds_since_beat
from edge_medgemma.runtime.clinic.instance import only_instance
from edge_medgemma.runtime.clinic.service_manager import notify
from edge_medgemma.runtime.clinic.state_folder import StateFolder

PROCESSES = {"node": 60.0, "worker": 1800.0, "page": 60.0}
"""Names of `edge-medgemma clinic` commands in the order in which they are started, and for how many
seconds one that has beaten (`heartbeat`) may be silent: a worker works at a slice for minutes."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STEADY_S = 60.0
"""A process that ran so long is started again at once when it ends."""

GRACE_S = 20.0
"""For a process to end by itself once it was asked to: a forward step of a slow engine."""

LONGEST_START_S = 45.0
"""systemd is told that the service runs even if a part of it does not: the others do their work."""

OOM_SCORE = {"worker": 700}
"""Whom the kernel ends first when memory runs out: the engine, whose work is done again."""

NICENESS = {"worker": 10}
"""Who leaves the cores to the others: images are received and pages shown while the engine looks."""

_TICK_S = 0.5
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Child:
    """One process and when it is to be started."""

    name: str
    command: Sequence[str]
    silence_s: float = math.inf
    """It is taken to hang if it beat once and then not for so long."""
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    start_at_s: float = 0.0
    pause_s: float = FIRST_PAUSE_S


@dataclass(slots=True)
class Supervisor:
    """Runs the children until a signal says to stop."""

    state: StateFolder
    children: Sequence[Child]
    ports: Sequence[int]
    """Ports of this machine that answer once all is up."""
    announce: Callable[[], None]
    """Called once, when they do, or with what there is after `LONGEST_START_S`."""
    say: Callable[[str], None]
    """Takes a line for the log."""
    grace_s: float = GRACE_S
    clock: Callable[[], float] = time.monotonic
    _began_s: float = field(default=0.0, init=False)
    _is_announced: bool = field(default=False, init=False)
    _status: str = field(default="", init=False)

    def run(self) -> None:
        """Start all, restart what ends, and return when SIGTERM, SIGINT or SIGHUP has stopped all.

        Raises:
            ResourceError: another clinic runs on the state folder.
        """
        with only_instance(self.state) as lock, _stop_signals() as signals:
            self._began_s = self.clock()
            try:
                while not _wait(signals, _TICK_S):
                    self._look(lock)
                    notify("WATCHDOG=1")
            finally:
                notify("STOPPING=1")
                self._stop()

    def _look(self, lock: int) -> None:
        now = self.clock()
        for child in self.children:
            if child.process is not None and child.process.poll() is not None:
                self._plan_restart(child, now)
            elif child.process is not None:
                self._end_if_silent(child)
            if child.process is None and now >= child.start_at_s:
                forget_beat(self.state, child.name)
                child.process = _start(child, lock)
                child.started_s = now
        if not self._is_announced and (self._is_up() or now - self._began_s > LONGEST_START_S):
            self._is_announced = True
            self.announce()
            notify("READY=1")
        if self._is_announced:
            self._tell_status()

    def _tell_status(self) -> None:
        """`running`, which the installation waits for, or what does not run."""
        ended = [child.name for child in self.children if child.process is None]
        status = f"not running: {', '.join(ended)}" if ended else "running"
        if status != self._status:
            self._status = status
            notify(f"STATUS={status}")

    def _end_if_silent(self, child: Child) -> None:
        silent_s = seconds_since_beat(self.state, child.name)
        if silent_s is not None and silent_s > child.silence_s:
            self.say(f"{child.name} has not moved for {silent_s:.0f} s and is ended")
            forget_beat(self.state, child.name)
            _signal_group(child, signal.SIGKILL)

    def _plan_restart(self, child: Child, now: float) -> None:
        assert child.process is not None
        if now - child.started_s >= STEADY_S:
            child.pause_s = FIRST_PAUSE_S
        child.start_at_s = now + child.pause_s
        self.say(
            f"{child.name} {_ending_words(child.process.returncode)}; "
            f"it is started again in {child.pause_s:.0f} s"
        )
        child.pause_s = min(child.pause_s * 2, LONGEST_PAUSE_S)
        child.process = None

    def _is_up(self) -> bool:
        return all(child.process is not None for child in self.children) and all(
            map(_answers, self.ports)
        )

    def _stop(self) -> None:
        running = [child for child in self.children if child.process is not None]
        for child in running:
            _signal_group(child, signal.SIGTERM)
        end = self.clock() + self.grace_s
        for child in running:
            assert child.process is not None
            try:
                child.process.wait(max(0.0, end - self.clock()))
            except subprocess.TimeoutExpired:
                self.say(f"{child.name} did not stop in {self.grace_s:.0f} s and is ended")
            _signal_group(child, signal.SIGKILL)  # also what it started itself
            child.process.wait()
            child.process = None


def _start(child: Child, lock: int) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own, which ends with this one however this one ends.

    It holds the lock too: no second clinic begins while a part of the first is still there.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        if sys.platform == "linux":
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it ended before the call
                os._exit(1)
            with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
                score.write(str(OOM_SCORE.get(child.name, 0)))
        if hasattr(os, "nice"):
            os.nice(NICENESS.get(child.name, 0))

    return subprocess.Popen(
        child.command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),  # stdout is for the addresses alone
        env=_environment(os.environ),
        process_group=0,  # the terminal's Ctrl-C is for the supervisor, which stops them in order
        pass_fds=(lock,),
        preexec_fn=die_with_parent,  # noqa: PLW1509 there is one thread
    )


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Ours without what lets a process speak to systemd in our name."""
    return {name: value for name, value in ours.items() if name not in _FOR_US}


_FOR_US = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}


def _signal_group(child: Child, number: signal.Signals) -> None:
    assert child.process is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, number)


def _ending_words(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """A socket that becomes readable when a signal asks to stop."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def wake(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            writer.send(b"\0")

    before = {number: signal.signal(number, wake) for number in numbers}
    try:
        yield reader
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def _wait(signals: socket.socket, seconds: float) -> bool:
    """Whether a signal asked to stop within `seconds`."""
    readable, _, _ = select.select([signals], [], [], seconds)
    return bool(readable)
