"""For which GPUs a CUDA library holds compiled kernels: read from the file, no GPU needed.

A wheel lists CUDA among its providers whether or not it has kernels for the card; without them the
first operator fails. The layout of fat binaries is that of `fatbinary_section.h` of the CUDA
toolkit and of the entries that `cuobjdump --list-elf` prints.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

FATBIN_MAGIC = struct.pack("<I", 0xBA55ED50)

_HEADER = struct.Struct("<IHHQ")
"""magic, version, header bytes, bytes of all entries"""

_ENTRY = struct.Struct("<HHIQIIHHI")
"""kind, version, header bytes, payload bytes, compressed bytes, _, minor, major, architecture"""

_PTX, _ELF = 1, 2


@dataclass(frozen=True, slots=True)
class Kernels:
    """Architectures as numbers, 86 for compute capability 8.6."""

    compiled: frozenset[int]
    """Run on this architecture, and on later minor versions of the same major one."""
    portable: frozenset[int]
    """PTX, which the driver compiles for this architecture and all later ones."""

    def run_on(self, compute_capability: tuple[int, int]) -> bool:
        """Whether a device of this capability can run them."""
        major, minor = compute_capability
        number = 10 * major + minor
        same_major = {sm for sm in self.compiled if sm // 10 == major and sm <= number}
        return bool(same_major) or any(ptx <= number for ptx in self.portable)


def read_kernels(library: Path) -> Kernels:
    """What the fat binaries of a shared library hold; empty sets for a library without any."""
    found: dict[int, set[int]] = {_PTX: set(), _ELF: set()}
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(FATBIN_MAGIC)
        while start >= 0:
            for kind, architecture in _entries(data, start):
                if kind in found:
                    found[kind].add(architecture)
            start = data.find(FATBIN_MAGIC, start + len(FATBIN_MAGIC))
    return Kernels(frozenset(found[_ELF]), frozenset(found[_PTX]))


def _entries(data: mmap.mmap, start: int) -> list[tuple[int, int]]:
    """Kind and architecture of every entry of the fat binary at `start`."""
    if start + _HEADER.size > len(data):
        return []
    _, version, header_bytes, size = _HEADER.unpack_from(data, start)
    position, end = start + header_bytes, start + header_bytes + size
    if version != 1 or end > len(data):
        return []  # the four bytes stand there by chance
    entries = []
    while position + _ENTRY.size <= end:
        kind, _, entry_header, blob, *_, architecture = _ENTRY.unpack_from(data, position)
        if not entry_header:
            break
        entries.append((kind, architecture))
        position += entry_header + blob
    return entries
