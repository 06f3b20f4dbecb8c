"""Decoding compressed slices where a crash, a hang or a memory bomb harms nothing else."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.pixels.pixel_data import DecodedSlices
from edge_medgemma.runtime.slicing.volume import Modality, Problem

FILE_LIMIT_S = 3.0
FRAME_LIMIT_S = 1.0
"""Seconds of the processor, not of the clock, that a request may take: the first plus the second for
each frame. A 512 × 512 slice takes 0.05 s, and a busy device no more."""

IDLE_LIMIT_S = 300.0
"""Seconds of the clock after which a request counts as hung: a file system that no longer answers."""

_CPU_LIMIT_SIGNAL = getattr(signal, "SIGXCPU", 0)
"""Ends a process that has spent RLIMIT_CPU; Windows has none, and IDLE_LIMIT_S alone holds there."""


class CodecProcess:
    """A worker process, started at the first request and again after each one it dies of."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def decode(self, path: Path, frames: Sequence[int], modality: Modality) -> DecodedSlices:
        """Slices as `pixels.decode_slices` gives them.

        Raises:
            UnreadableFileError: they cannot be decoded, or the process crashed or took too long.
        """
        limit_s = FILE_LIMIT_S + FRAME_LIMIT_S * len(frames)
        if self._process is None:
            self._process = _start()
        process, timed_out = self._process, threading.Event()

        def stop_hung() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(IDLE_LIMIT_S, stop_hung)
        timer.start()
        try:
            return _ask(process, path, frames, modality, limit_s)
        except (OSError, EOFError) as error:
            self.stop()
            if timed_out.is_set():
                reason = f"no answer within {IDLE_LIMIT_S:.0f} s"
            elif process.returncode == -_CPU_LIMIT_SIGNAL:
                reason = f"takes longer than {limit_s:.0f} s"
            else:
                reason = "crashes the codec"
            raise UnreadableFileError(f"pixels cannot be decoded: {reason}") from error
        finally:
            timer.cancel()

    def kill(self) -> None:
        """End the process from another thread: a `decode` under way there fails at once."""
        if process := self._process:
            process.kill()

    def stop(self) -> None:
        """End the process; the next request starts a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _start() -> subprocess.Popen[bytes]:
    # -P: the current folder may be the scan's, and its files are no modules to import
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "edge_medgemma.runtime.slicing.pixels.codec_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def _ask(
    process: subprocess.Popen[bytes],
    path: Path,
    frames: Sequence[int],
    modality: Modality,
    limit_s: float,
) -> DecodedSlices:
    """Slices as the process decodes them. Raises EOFError or OSError if it has died."""
    assert process.stdin is not None and process.stdout is not None
    request = {
        "path": str(path),
        "frames": list(frames),
        "modality": modality.value,
        "limit_s": limit_s,
    }
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header = json.loads(line)
    if "reason" in header:
        raise UnreadableFileError(header["reason"])
    shape = tuple(int(side) for side in header["shape"])
    content = process.stdout.read(4 * int(np.prod(shape)))
    if len(content) < 4 * np.prod(shape):
        raise EOFError
    problems = tuple(Problem(name, detail) for name, detail in header["problems"])
    return DecodedSlices(np.frombuffer(content, dtype=np.float32).reshape(shape), problems)
