"""Blocks of a device's memory that are released with their owner."""

from edge_medgemma.runtime.backends.cuda.device import Device


class DeviceBlocks:
    """Device memory is not the garbage collector's; these blocks are."""

    def __init__(self, device: Device) -> None:
        """None yet."""
        self._device = device
        self._addresses: list[int] = []

    def allocate(self, size_bytes: int) -> int:
        """Address of a new block; raises as `Device.allocate` does."""
        self._addresses.append(self._device.allocate(size_bytes))
        return self._addresses[-1]

    def close(self) -> None:
        """Release all of them."""
        while self._addresses:
            self._device.release(self._addresses.pop())

    def __del__(self) -> None:
        self.close()
