"""A device whose memory is the host's: addresses, strides and order are real, the GPU is not."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.cuda.device import DeviceProperties
from edge_medgemma.runtime.errors import DeviceMemoryError

UNDEFINED = 0xFF
"""What new memory holds: NaN in every float type."""


class HostDevice:
    """Records every call; memory that was never allocated, or was released, is an error."""

    can_record = True
    """Whether work can become a recording."""

    def __init__(self, limit_bytes: int = 2**31) -> None:
        self.calls: list[str] = []
        self.recordings: dict[int, list[Callable[[], None]]] = {}
        self._being_recorded: list[Callable[[], None]] | None = None
        self.blocks: dict[int, NDArray[np.uint8]] = {}
        self._limit_bytes = limit_bytes
        self._streams = 0

    def limit(self, limit_bytes: int) -> None:
        """From now on there is no more than so much."""
        self._limit_bytes = limit_bytes

    def properties(self) -> DeviceProperties:
        return DeviceProperties("Host", (8, 6), 13020, self._limit_bytes, self._limit_bytes)

    def allocate(self, size_bytes: int) -> int:
        if sum(block.size for block in self.blocks.values()) + size_bytes > self._limit_bytes:
            raise DeviceMemoryError("the GPU's memory is full")
        block = np.full(max(size_bytes, 1), UNDEFINED, np.uint8)
        self.blocks[block.ctypes.data] = block
        return block.ctypes.data

    def release(self, address: int) -> None:
        del self.blocks[address]

    def new_stream(self) -> int:
        self._streams += 1
        return self._streams

    def clear(self, address: int, size_bytes: int, stream: int) -> None:
        self.view(address, size_bytes)[:] = 0

    def upload(self, address: int, array: NDArray[Any], stream: int) -> None:
        assert self._being_recorded is None, "a recording would upload this very array again"
        self.calls.append(f"upload {stream}")
        assert array.flags.c_contiguous
        self.view(address, array.nbytes)[:] = array.reshape(-1).view(np.uint8)

    def download(self, array: NDArray[Any], address: int, stream: int) -> None:
        self.calls.append(f"download {stream}")
        assert array.flags.c_contiguous
        array.reshape(-1).view(np.uint8)[:] = self.view(address, array.nbytes)

    def copy_blocks(
        self,
        target: tuple[int, int],
        source: tuple[int, int],
        width_bytes: int,
        count: int,
        stream: int,
    ) -> None:
        for number in range(count):
            into = self.view(target[0] + number * target[1], width_bytes)
            of = self.view(source[0] + number * source[1], width_bytes)
            assert not np.shares_memory(into, of), "overlapping copies are undefined on a GPU"
            into[:] = of

    def follow(self, stream: int, other: int) -> None:
        self.calls.append(f"follow {stream} {other}")

    def synchronize(self, stream: int) -> None:
        self.calls.append(f"synchronize {stream}")

    def launch(self, work: Callable[[], None]) -> None:
        """What a library gives to a stream: done at once or, while recording, when replayed."""
        if self._being_recorded is None:
            work()
        else:
            self._being_recorded.append(work)

    def record(self, stream: int, work: Callable[[], None]) -> int | None:
        self.calls.append(f"record {stream}")
        if not self.can_record:
            return None
        self._being_recorded = []
        try:
            work()
            number = len(self.calls)
            self.recordings[number] = self._being_recorded
        finally:
            self._being_recorded = None
        return number

    def replay(self, recording: int, stream: int) -> None:
        self.calls.append(f"replay {stream}")
        for work in self.recordings[recording]:
            work()

    def forget(self, recording: int) -> None:
        del self.recordings[recording]

    def view(self, address: int, size_bytes: int) -> NDArray[np.uint8]:
        """Device memory as bytes, only where it was allocated."""
        for start, block in self.blocks.items():
            if start <= address and address + size_bytes <= start + block.size:
                return block[address - start : address - start + size_bytes]
        raise AssertionError(f"{size_bytes} bytes at {ctypes.c_void_p(address)} are not allocated")
