"""Peak resident memory of this process while a block runs."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

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

        `kernel`: the kernel's high-water mark, reset at the beginning. `sampled`: the largest of
        samples 20 ms apart, where there is no such mark or it may not be reset.
        """
        try:
            (self._process / "clear_refs").write_text(RESET_PEAK)
        except OSError:
            with self._sampled():
                yield
        else:
            yield
            self.bytes, self.method = self._high_water_bytes(), "kernel"

    @contextmanager
    def _sampled(self) -> Iterator[None]:
        done = threading.Event()
        process = psutil.Process()
        peak = 0

        def sample() -> None:
            nonlocal peak
            while True:
                peak = max(peak, process.memory_info().rss)
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

    def _high_water_bytes(self) -> int:
        """Bytes of VmHWM, which psutil does not read and getrusage inherits from the parent."""
        status = (self._process / "status").read_text()
        (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        return int(kilobytes) * 1024
