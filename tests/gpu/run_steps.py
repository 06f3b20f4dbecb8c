"""Run the steps, each with its own time limit, and write every result as it comes.

Run as a module, `PYTHONPATH=tests python -m gpu.run_steps`, by the interpreter that has the program.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from gpu.steps import DEVICE, DRY_RUN, Step, steps
from gpu.summary import summary

SCHEMA_VERSION = 1
RESULTS_NAME = "results.json"
LOG_NAME = "log.txt"

TOTAL_S = 460.0
"""Of all steps together: a call of at most 600 s also joins and installs."""

TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a step."""

    name: str
    status: str
    """`passed`, `failed`, `timed_out` or `skipped`"""
    reason: str
    """Why it was skipped; empty otherwise"""
    command: str
    wall_s: float
    time_limit_s: float
    exit_status: int | None
    document: Any
    """The JSON that the step wrote; None where it wrote none"""
    log_tail: tuple[str, ...]
    """Last lines of what it printed; none where it passed"""
    may_fail: bool


class Runner:
    """Runs steps in order and keeps their results in a file, by which a second run goes on."""

    def __init__(self, state: Path, out: Path, mode: str, total_s: float) -> None:
        """`state` outlives a run, `out` gets copies of results and log; `mode` names the run."""
        self._state = state
        self._out = out
        self._mode = mode
        self._end_s = time.monotonic() + total_s
        for folder in (state, out):
            folder.mkdir(parents=True, exist_ok=True)
        self._results = self._earlier()

    def run(self, planned: Sequence[Step], again: Sequence[str] = ()) -> tuple[Result, ...]:
        """Run what has no result yet, or is named in `again`."""
        for name in again:
            self._results.pop(name, None)
        order = [step.name for step in planned]
        for step in planned:
            if step.name not in self._results or self._results[step.name].status == "skipped":
                result = self._step(step)
                self._results[step.name] = result
                self._write(order)
                print(f"{result.status:9} {result.wall_s:6.1f} s  {step.name}", flush=True)
        return tuple(self._results[name] for name in order)

    def _step(self, step: Step) -> Result:
        limit_s = min(step.time_limit_s, self._end_s - time.monotonic())
        lacking = [name for name in step.needs if self._results[name].status != "passed"]
        reason = (
            f"needs {', '.join(lacking)}" if lacking else "no time left" if limit_s <= 0 else ""
        )
        command = shlex.join(step.command)
        if reason:
            return Result(
                step.name, "skipped", reason, command, 0.0, step.time_limit_s, None, None, (),
                step.may_fail,
            )  # fmt: skip
        for old in (step.makes, step.document):
            _remove(old)
        output = self._state / f"{step.name.replace(' ', '-')}.out"
        errors = output.with_suffix(".err")
        start_s = time.monotonic()
        with output.open("w") as standard, errors.open("w") as error:
            status, code = _run(step.command, limit_s, standard, error)
        wall_s = time.monotonic() - start_s
        printed = [*_lines(output), *_lines(errors)]
        self._log(step.name, command, status, printed)
        return Result(
            name=step.name,
            status=status,
            reason="",
            command=command,
            wall_s=round(wall_s, 3),
            time_limit_s=step.time_limit_s,
            exit_status=code,
            document=_json(step.document),
            log_tail=() if status == "passed" else tuple(printed[-TAIL_LINES:]),
            may_fail=step.may_fail,
        )

    def _earlier(self) -> dict[str, Result]:
        path = self._state / RESULTS_NAME
        if not path.is_file():
            return {}
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["mode"] != self._mode:
            sys.exit(
                f"error: '{self._state}' holds a run of mode {document['mode']}; give another --state"
            )
        found = (Result(**{**one, "log_tail": tuple(one["log_tail"])}) for one in document["steps"])
        return {one.name: one for one in found}

    def _write(self, order: Sequence[str]) -> None:
        document = {
            "schema_version": SCHEMA_VERSION,
            "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "mode": self._mode,
            "steps": [asdict(self._results[name]) for name in order if name in self._results],
        }
        path = self._state / RESULTS_NAME
        part = path.with_suffix(".part")
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
        for name in (RESULTS_NAME, LOG_NAME):
            if (self._state / name).is_file():
                shutil.copyfile(self._state / name, self._out / name)

    def _log(self, name: str, command: str, status: str, printed: Sequence[str]) -> None:
        with (self._state / LOG_NAME).open("a", encoding="utf-8") as log:
            log.write("\n".join([f"## {name}: {status}", f"$ {command}", *printed, "", ""]))


def _run(
    command: Sequence[str], limit_s: float, output: TextIO, errors: TextIO
) -> tuple[str, int | None]:
    """Status and exit status of a command; its whole process group ends with it."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )
    except OSError as error:
        errors.write(f"error: '{command[0]}' does not start: {error.strerror}\n")
        return "failed", None
    try:
        code = process.wait(limit_s)
        return ("passed" if code == 0 else "failed"), code
    except subprocess.TimeoutExpired:
        return "timed_out", None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _remove(path: Path | None) -> None:
    if path is not None and path.is_dir():
        shutil.rmtree(path)
    elif path is not None:
        path.unlink(missing_ok=True)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _json(path: Path | None) -> Any:
    """What the file holds; None where it holds no JSON."""
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def main() -> None:
    """Run all, print a summary, and exit with 1 where a step failed that should not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="on the CPU with small shapes")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter with torch")
    parser.add_argument("--state", type=Path, required=True, help="folder for engines and results")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and log")
    parser.add_argument("--total", type=float, default=TOTAL_S, help="seconds for all steps")
    parser.add_argument(
        "--again", action="append", default=[], metavar="STEP", help="run once more"
    )
    arguments = parser.parse_args()
    subject = DRY_RUN if arguments.dry_run else DEVICE
    mode = "dry-run" if arguments.dry_run else "device"
    state = arguments.state.resolve() / mode
    runner = Runner(state, arguments.out, mode, arguments.total)
    results = runner.run(steps(subject, state, arguments.torch_python), arguments.again)
    print(summary([asdict(one) for one in results]))
    print(f"results: {arguments.out / RESULTS_NAME}")
    sys.exit(any(one.status != "passed" and not one.may_fail for one in results))


if __name__ == "__main__":
    main()
