"""Work that a device is given again and again over the same memory: recorded once, then replayed."""

from collections.abc import Callable

from edge_medgemma.runtime.backends.cuda.device import Device


class CudaGraph:
    """A CUDA graph of one token's work: hundreds of launches become one."""

    def __init__(self, device: Device, stream: int) -> None:
        """`stream` takes the work."""
        self._device = device
        self._stream = stream
        self._addresses: tuple[int, ...] = ()
        self._recording: int | None = None
        self._is_recordable = True

    def run(self, addresses: tuple[int, ...], work: Callable[[], None]) -> None:
        """Give `work` to the stream, which touches no memory but at `addresses` and its own.

        The first time over these addresses it is called: libraries prepare themselves then, which
        cannot be recorded (TensorRT developer guide, CUDA Graphs). The second time it is recorded.
        """
        if addresses != self._addresses:
            self.close()
            self._addresses = addresses
            work()
            return
        if self._recording is None and self._is_recordable:
            self._recording = self._device.record(self._stream, work)
            self._is_recordable = self._recording is not None
        if self._recording is None:
            work()
        else:
            self._device.replay(self._recording, self._stream)

    def close(self) -> None:
        """Release the recording."""
        if self._recording is not None:
            self._device.forget(self._recording)
        self._recording = None
        self._addresses = ()
