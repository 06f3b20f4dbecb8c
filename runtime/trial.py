"""Code that may kill its process, run in a child: what became of it.

A processor, or the machine that it is simulated on, can claim instructions that it does not have; the
library that believes it then dies of a signal, which no handler of this process could outlive.
"""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

if sys.platform != "win32":
    import resource

CPU_LIMIT_S = 60
"""Processor time of a trial that is meant to take less than a second."""

WALL_LIMIT_S = 120.0
"""For one that waits for ever. A machine with other work to do gets as far by then."""

OUTSIDE_SIGNALS = {
    getattr(signal, name, None) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
}
"""Sent by others, such as a system without memory: they say nothing about what was tried."""

NO_MEMORY = ("bad_alloc", "no memory", "Memory allocation", "allocate memory")
"""What libraries say where memory was short: true of that moment, not of the machine."""

PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""

_STEP, _FAULT, _PASSED = "step", "fault", "passed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended."""

    fault: str | None
    """What went wrong, as the end of a sentence: `dies of SIGILL in ...`; None where it passed."""
    culprit: str
    """Whose code was at work when the child died or hung, in its words; empty where it lived to say more."""
    is_certain: bool
    """Whether the same happens again: not where the child was killed from outside."""
    result: str = ""
    """What a child that passed found out."""


def run_trial(
    module: str,
    arguments: Sequence[str],
    *,
    cpu_limit_s: int = CPU_LIMIT_S,
    wall_limit_s: float = WALL_LIMIT_S,
) -> Outcome:
    """Run a module whose main code calls `limit_child`, `step` and at the end `finish`."""
    command = [sys.executable, "-P", "-m", module, str(cpu_limit_s), *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=wall_limit_s, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        culprit, what = _last_step(error.stdout or b"")
        return Outcome(f"does not end{what}", culprit, is_certain=True)
    except OSError as error:
        return Outcome(f"could not be tried: {error.strerror}", "", is_certain=False)
    return _outcome(done)


def limit_child() -> list[str]:
    """Begin as the child: limit its time, leave no core dump; returns the arguments."""
    limit_s, *arguments = sys.argv[1:]
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s) + 1))
        # 1, not 0: Linux then spares the program that core dumps are piped to, and its window, as well
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    if sys.platform == "linux":  # else a trial of minutes would outlive a parent that is killed
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return arguments


def step(culprit: str, what: str) -> None:
    """Say, in the child, whose code is about to do what: `the product of 4-bit weights`."""
    print(_STEP, culprit, what, sep="\t", flush=True)


def finish(fault: str | None, result: str = "") -> None:
    """End the child's work: `fault` as in `Outcome`."""
    print(*((_PASSED, result) if fault is None else (_FAULT, fault)), sep="\t", flush=True)


def _outcome(done: subprocess.CompletedProcess[bytes]) -> Outcome:
    culprit, what = _last_step(done.stdout)
    kind, _, words = _lines(done.stdout)[-1].partition("\t")
    if done.returncode == 0 and kind == _PASSED:
        return Outcome(None, culprit, is_certain=True, result=words)
    is_short = any(word in words + done.stderr.decode(errors="replace") for word in NO_MEMORY)
    if done.returncode == 0 and kind == _FAULT:
        return Outcome(words, "", is_certain=not is_short)
    if done.returncode < 0:
        name = _signal_name(-done.returncode)
        is_certain = -done.returncode not in OUTSIDE_SIGNALS and not is_short
        words = "does not end" if name == "SIGXCPU" else f"dies of {name}"
        return Outcome(f"{words}{what}", culprit, is_certain)
    reason = _lines(done.stderr)[-1] or f"status {done.returncode}"
    return Outcome(f"could not be tried: {reason}", culprit, is_certain=False)


def _last_step(output: bytes) -> tuple[str, str]:
    """Whose code was at work, and ` in` what; both empty before the first step."""
    steps = [line.split("\t") for line in _lines(output) if line.startswith(f"{_STEP}\t")]
    if not steps or len(steps[-1]) != 3:
        return "", ""
    _, culprit, what = steps[-1]
    return culprit, f" in {what}"


def _lines(output: bytes) -> list[str]:
    return output.decode(errors="replace").strip().splitlines() or [""]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
