"""The linear maps of a decoder in device memory, one copy for all of its graphs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_medgemma.runtime.backends.cuda.buffers import DeviceBlocks
from edge_medgemma.runtime.backends.cuda.device import Device
from edge_medgemma.runtime.errors import EngineError


class DeviceWeights:
    """Read from an engine directory as its graphs' metadata says; see `runtime.manifest`."""

    def __init__(
        self, device: Device, directory: Path, places: Mapping[str, str], stream: int
    ) -> None:
        """`places` are the metadata of a graph.

        Raises:
            DeviceMemoryError: there is not enough.
            EngineError: a file is not what the graph was written for.
        """
        self._blocks = DeviceBlocks(device)
        self.addresses: dict[str, int] = {}
        """Device address by the name of a graph's input."""
        for name, place in places.items():
            file, offset, size_bytes = place.rsplit(" ", 2)
            try:
                weights = np.memmap(
                    directory / file, np.uint8, "r", int(offset), (int(size_bytes),)
                )
            except (OSError, ValueError) as error:
                raise EngineError(
                    f"'{file}' does not hold the weights of '{directory}' ({error}); export it again"
                ) from None
            self.addresses[name] = self._blocks.allocate(weights.nbytes)
            device.upload(self.addresses[name], weights, stream)
        device.synchronize(stream)
