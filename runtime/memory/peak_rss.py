"""Peak resident memory of this process while one thing runs."""

import contextlib
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESET_PEAK = "5"
"""Written to clear_refs, sets VmHWM to the present size; proc(5), Linux 4.0 and later."""

SAMPLING_PERIOD_S = 0.02


class PeakMemory:
    """Peak resident bytes of a block, and how they were found."""

    def __init__(self, process: Path = Path("/proc/self")) -> None:
        """`process` is the kernel's folder of this process."""
        self._process = process
        self.bytes: int | None = None
        self.method = "not available"

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Set `bytes` and `method` at the end of the block.

        `kernel`: the kernel's own high-water mark, reset at the beginning. `sampled`: where that is
        not permitted, the largest of samples 20 ms apart. `since start`: where there is no /proc.
        """
        if self._reset():
            yield
            self.bytes, self.method = self._status_bytes("VmHWM"), "kernel"
        elif self._status_bytes("VmRSS") is not None:
            with self._sampled():
                yield
        else:
            yield
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            self.bytes = peak if sys.platform == "darwin" else peak * 1024
            self.method = "since start"

    def _reset(self) -> bool:
        with contextlib.suppress(OSError):
            (self._process / "clear_refs").write_text(RESET_PEAK)
            return self._status_bytes("VmHWM") is not None
        return False

    @contextmanager
    def _sampled(self) -> Iterator[None]:
        done = threading.Event()
        peak = 0

        def sample() -> None:
            nonlocal peak
            while True:
                peak = max(peak, self._status_bytes("VmRSS") or 0)
                if done.wait(SAMPLING_PERIOD_S):
                    return

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.bytes, self.method = peak, "sampled"

    def _status_bytes(self, key: str) -> int | None:
        return kilobytes_of(self._process / "status", key)


def kilobytes_of(path: Path, key: str) -> int | None:
    """Bytes of a `Key:  123 kB` line of a file under /proc; None without such a file or line."""
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
