"""Temporary files of what is being received, and which of them nobody writes any more."""

import contextlib
import fcntl
import os
import secrets
from functools import cache
from pathlib import Path

_LOCK_SUFFIX = ".lock"


def new_path(folder: Path, suffix: str) -> Path:
    """A path that no other thread or process is given, and that `sweep` leaves alone meanwhile.

    Raises:
        OSError: the folder cannot be written.
    """
    return folder / f"{_owner(folder, os.getpid())}-{secrets.token_hex(10)}{suffix}"


def sweep(folder: Path) -> None:
    """Delete the files of processes that have ended."""
    living = {path.stem for path in folder.glob(f"*{_LOCK_SUFFIX}") if _is_locked(path)}
    for path in folder.iterdir():
        if path.stem.split("-")[0] not in living:
            with contextlib.suppress(OSError):
                path.unlink()


@cache
def _owner(folder: Path, process: int) -> str:
    """What begins the names of this process's files; the system drops its lock with the process."""
    while True:
        token = secrets.token_hex(8)
        path = folder / f"{token}{_LOCK_SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():  # else swept before it was locked
            return token
        os.close(descriptor)


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
