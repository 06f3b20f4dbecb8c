"""Files that grow by one line each and outlive a kill: lock, whole lines, lines on the disk."""

import os
import sys
from typing import IO


def lock_alone(file: IO[bytes]) -> bool:
    """Lock a file until its process ends; False where another process has locked it.

    True as well on file systems and systems without such locks.
    """
    if sys.platform == "win32":
        return True
    import errno
    import fcntl

    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
    return True


def whole_lines(data: bytes) -> tuple[list[bytes], int]:
    """Lines that end, and their bytes in all: what follows the last newline was torn off."""
    end = data.rfind(b"\n") + 1
    return data[:end].splitlines(), end


def append_line(file: IO[bytes], line: bytes) -> None:
    """Add a line; it is on the disk when this returns."""
    rest = memoryview(line + b"\n")
    while rest:
        rest = rest[file.write(rest) :]
    file.flush()
    os.fsync(file.fileno())
