"""The driver's end of a worker: one process, one request at a time."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TESTS = Path(__file__).resolve().parents[1]


class PeerFailure(Exception):
    """A peer could not do a step; the message is its reason."""


class OursFailed(Exception):
    """The step failed in our own worker: the comparison is void."""


class PeerProcess:
    """A worker in its environment. Leaving the context ends it."""

    def __init__(
        self,
        python: Path,
        module: str,
        arguments: Sequence[str],
        log: Path,
    ) -> None:
        """Start it; what it prints besides replies goes to `log`.

        Args:
            python: interpreter of its environment
            module: of this package
            arguments: of the module
            log: file that grows
        """
        self.begin_s = time.perf_counter()
        self.log = log
        self._failure = OursFailed if module == "ours" else PeerFailure
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(python), "-m", f"comparisons.{module}", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=TESTS.parent,
                env=os.environ | {"PYTHONPATH": str(TESTS), "HF_HUB_OFFLINE": "1"},
            )

    def ask(self, step: str, **request: object) -> dict[str, Any]:
        """Send one request and wait for its reply.

        Raises:
            PeerFailure: the peer cannot, or its process ended.
            OursFailed: the same of ours.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"step": step} | request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._failure(
                f"its process ended with {self._process.wait()} at {step}{self._last()}"
            )
        reply: dict[str, Any] = json.loads(line)
        if "cannot" in reply:
            raise self._failure(reply["cannot"])
        return reply

    def _last(self) -> str:
        """The last line it printed, which usually is the exception."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f" ({lines[-1].strip()[:300]})" if lines else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
