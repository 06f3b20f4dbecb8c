"""Key and value caches in the memory of a device."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.base import AttentionKind
from edge_medgemma.runtime.backends.cuda.device import (
    Device,
    element_bytes,
    from_stored,
    stored_dtype,
    to_stored,
)
from edge_medgemma.runtime.manifest import Manifest


class DeviceCaches:
    """Key and value buffers [1, kv_heads, rows, head_dim] of every layer; see `model.Caches`."""

    def __init__(
        self,
        device: Device,
        manifest: Manifest,
        stream: int,
        fixed_rows: Mapping[AttentionKind, int] | None = None,
    ) -> None:
        """`fixed_rows` is the capacity that a plan was built for; None grows as asked."""
        text, precision = manifest.text, manifest.precision.cache
        self._device, self._stream, self._precision = device, stream, precision
        self._heads, self._head_dim = text.kv_heads, text.head_dim
        self._row_bytes = text.head_dim * element_bytes(precision)
        self._is_fixed = fixed_rows is not None
        self._rows: dict[AttentionKind, int] = {"global": 0, "local": 0}
        self._names: dict[AttentionKind, list[str]] = {"global": [], "local": []}
        for layer, is_global in enumerate(text.layer_is_global):
            attention: AttentionKind = "global" if is_global else "local"
            self._names[attention] += [f"key.{layer}", f"value.{layer}"]
        self.addresses: dict[str, int] = {}
        """Device address by `key.{layer}` and `value.{layer}`."""
        self._scratch = 0
        self._owned: set[int] = set()
        for attention, rows in (fixed_rows or {}).items():
            self._allocate(attention, rows, 0)

    def shape(self, attention: AttentionKind) -> tuple[int, int, int, int]:
        """Shape of every buffer of a kind of attention."""
        return (1, self._heads, self._rows[attention], self._head_dim)

    def attention_of(self, name: str) -> AttentionKind:
        """Where a buffer belongs."""
        return "global" if name in self._names["global"] else "local"

    def capacity(self, attention: AttentionKind) -> int:
        """See `Caches.capacity`."""
        return self._rows[attention]

    def reserve(self, attention: AttentionKind, rows: int, used: int) -> None:
        """See `Caches.reserve`; a fixed capacity stays, the decoder keeps to it."""
        if not self._is_fixed:
            self._allocate(attention, rows, used)

    def drop(self, attention: AttentionKind, count: int, used: int) -> None:
        """See `Caches.drop`; by way of scratch memory, since the two stretches overlap."""
        pitch = self._rows[attention] * self._row_bytes
        width = (used - count) * self._row_bytes
        if not width:
            return
        for name in self._names[attention]:
            address = self.addresses[name]
            source = (address + count * self._row_bytes, pitch)
            self._copy((self._scratch, width), source, width)
            self._copy((address, pitch), (self._scratch, width), width)
        self._device.synchronize(self._stream)

    def view(self, attention: AttentionKind, used: int) -> list[NDArray[np.floating]]:
        """See `Caches.view`; a copy in host memory."""
        copied = []
        pitch, width = self._rows[attention] * self._row_bytes, used * self._row_bytes
        for name in self._names[attention]:
            rows = np.empty((1, self._heads, used, self._head_dim), stored_dtype(self._precision))
            if used:
                self._copy((self._scratch, width), (self.addresses[name], pitch), width)
                self._device.download(rows, self._scratch, self._stream)
                self._device.synchronize(self._stream)
            copied.append(from_stored(rows, self._precision))
        return copied

    def restore(self, attention: AttentionKind, saved: Iterable[NDArray[np.floating]]) -> None:
        """See `Caches.restore`."""
        pitch = self._rows[attention] * self._row_bytes
        for name, rows in zip(self._names[attention], saved, strict=True):
            self._check(attention, rows)
            if rows.shape[2]:
                stored = to_stored(rows, self._precision)
                width = rows.shape[2] * self._row_bytes
                self._device.upload(self._scratch, stored, self._stream)
                self._copy((self.addresses[name], pitch), (self._scratch, width), width)
                self._device.synchronize(self._stream)

    def __del__(self) -> None:
        """Device memory is not the garbage collector's; a prefix that goes gives it back."""
        for address in self._owned:
            self._device.release(address)

    def _check(self, attention: AttentionKind, rows: NDArray[np.floating]) -> None:
        """Raise ValueError where `rows` are none of `view`."""
        dtype = np.dtype(np.float16 if self._precision == "fp16" else np.float32)
        shape = (1, self._heads, min(rows.shape[2], self._rows[attention]), self._head_dim)
        if (rows.shape, rows.dtype) != (shape, dtype):
            raise ValueError(
                f"a {attention} array is {rows.dtype} {rows.shape}, the caches take {dtype} {shape}"
            )

    def _allocate(self, attention: AttentionKind, rows: int, used: int) -> None:
        """New buffers for a attention, one layer at a time, so that old and new never all exist."""
        old_pitch, pitch = self._rows[attention] * self._row_bytes, rows * self._row_bytes
        if rows > max(self._rows.values()):
            scratch = self._new(rows)
            self._free(self._scratch)
            self._scratch = scratch
        for name in self._names[attention]:
            new, old = self._new(rows), self.addresses.get(name, 0)
            if used:
                self._copy((new, pitch), (old, old_pitch), used * self._row_bytes)
                self._device.synchronize(self._stream)
            self._free(old)
            self.addresses[name] = new
        self._rows[attention] = rows

    def _new(self, rows: int) -> int:
        size_bytes = self._heads * rows * self._row_bytes
        address = self._device.allocate(size_bytes)
        self._owned.add(address)
        # A masked row counts as 0 times its value, and 0 times NaN is NaN.
        self._device.clear(address, size_bytes, self._stream)
        return address

    def _free(self, address: int) -> None:
        if address:
            self._device.release(address)
            self._owned.discard(address)

    def _copy(self, target: tuple[int, int], source: tuple[int, int], width_bytes: int) -> None:
        self._device.copy_blocks(target, source, width_bytes, self._heads, self._stream)
