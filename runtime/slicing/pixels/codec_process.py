"""Decoding compressed slices where a crash, a hang or a memory bomb harms nothing else."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError
from edge_medgemma.runtime.slicing.volume import Modality

START_LIMIT_S = 30.0
"""For the first request of a process: Python and its imports, on a slow device under load."""

FILE_LIMIT_S = 3.0
FRAME_LIMIT_S = 1.0
"""A request may take the first plus the second for each frame; a 512 × 512 slice takes 0.05 s."""


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

    def decode(self, path: Path, frames: Sequence[int], modality: Modality) -> NDArray[np.float32]:
        """Slices [N, rows, columns] as `pixels.decode_slices` gives them.

        Raises:
            UnreadableFileError: they cannot be decoded, or the process crashed or took too long.
        """
        limit_s = FILE_LIMIT_S + FRAME_LIMIT_S * len(frames)
        if self._process is None:
            limit_s += START_LIMIT_S
            self._process = _start()
        process, timed_out = self._process, threading.Event()

        def stop_late() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(limit_s, stop_late)
        timer.start()
        try:
            return _ask(process, path, frames, modality)
        except (OSError, EOFError) as error:
            self.stop()
            took = (
                f"takes longer than {limit_s:.0f} s" if timed_out.is_set() else "crashes the codec"
            )
            raise UnreadableFileError(f"pixels cannot be decoded: {took}") from error
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
    process: subprocess.Popen[bytes], path: Path, frames: Sequence[int], modality: Modality
) -> NDArray[np.float32]:
    """Raises EOFError or OSError if the process has died."""
    assert process.stdin is not None and process.stdout is not None
    request = {"path": str(path), "frames": list(frames), "modality": modality.value}
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
    return np.frombuffer(content, dtype=np.float32).reshape(shape)
