"""Several codec processes at once, since a slice takes its codec longer than its file the disk."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from edge_medgemma.runtime.host import usable_cores
from edge_medgemma.runtime.slicing.pixels.codec_process import CodecProcess
from edge_medgemma.runtime.slicing.pixels.pixel_data import DecodedSlices
from edge_medgemma.runtime.slicing.volume import Modality

MAX_PROCESSES = 4
"""More bring little on the devices this is for, and each takes 100 MB."""

PORTIONS_PER_PROCESS = 40
"""Starting a process takes as long as it then takes to decode this many files of one slice."""


class CodecPool:
    """Codec processes, each started when there is work for it, all gone at the end of the block."""

    def __init__(self, portions: int) -> None:
        """`portions` is how many requests there will be."""
        worthwhile = 1 + portions // PORTIONS_PER_PROCESS
        self.size = min(MAX_PROCESSES, usable_cores(), worthwhile)
        self._threads = ThreadPoolExecutor(self.size, "codec")
        self._codecs = [CodecProcess() for _ in range(self.size)]
        self._idle: SimpleQueue[CodecProcess] = SimpleQueue()
        for codec in self._codecs:
            self._idle.put(codec)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for codec in self._codecs:
            codec.kill()
        self._threads.shutdown(wait=True)
        for codec in self._codecs:
            codec.stop()

    def submit(
        self, path: Path, frames: Sequence[int], modality: Modality
    ) -> Future[DecodedSlices]:
        """`CodecProcess.decode` by whichever process is free first."""
        return self._threads.submit(self._decode, path, frames, modality)

    def _decode(self, path: Path, frames: Sequence[int], modality: Modality) -> DecodedSlices:
        codec = self._idle.get()
        try:
            return codec.decode(path, frames, modality)
        finally:
            self._idle.put(codec)
