"""Names of all files that anything opens in a folder, libraries in C and Rust among them (Linux)."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_OPEN = 0x20
EVENT = struct.Struct("iIII")
"""struct inotify_event: watch, mask, cookie, length of the name that follows"""


@contextmanager
def opened_files(folder: Path) -> Iterator[set[str]]:
    """A set that holds the names after the block; the kernel reports them, not Python."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    if descriptor < 0 or libc.inotify_add_watch(descriptor, bytes(folder), IN_OPEN) < 0:
        raise OSError(ctypes.get_errno(), "no inotify")
    names: set[str] = set()
    try:
        yield names
        names.update(_names(descriptor))
    finally:
        os.close(descriptor)


def _names(descriptor: int) -> Iterator[str]:
    while True:
        try:
            data = os.read(descriptor, 2**16)
        except BlockingIOError:
            return
        begin = 0
        while begin < len(data):
            *_, length = EVENT.unpack_from(data, begin)
            begin += EVENT.size
            name = data[begin : begin + length].rstrip(b"\0").decode()
            begin += length
            if name:
                yield name
