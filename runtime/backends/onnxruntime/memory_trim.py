"""Pages that count as this process's memory though nothing needs them."""

import contextlib
import ctypes
import re
from pathlib import Path

MADV_DONTNEED = 4
"""madvise(2): pages of a private map that nobody wrote to come back from the file when read."""

_MAP = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(/.*)$")


def release_mapped(folder: Path) -> None:
    """Let go of the pages of maps of the files in `folder` that nobody wrote to.

    Loading reads every original weight, though the packed ones are what is computed with; what a
    pass needs is mapped again from the page cache. Does nothing where the system is not Linux.

    Never call it while something loads or closes in another thread: a map that ends meanwhile may
    have made room for other memory, which would be emptied.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        inside = f"{folder.resolve()}/"
        begin = end = 0
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if found := _MAP.match(line):
                is_ours = found[3].startswith(inside)
                begin, end = (int(found[i], 16) if is_ours else 0 for i in (1, 2))
            elif "-" in line.split(maxsplit=1)[0]:
                begin = end = 0  # a map of no file
            elif line.split() == ["Anonymous:", "0", "kB"] and end > begin:
                madvise(begin, end - begin, MADV_DONTNEED)


def trim_heap() -> None:
    """Give back what was freed between blocks that are still in use. Only glibc can."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
