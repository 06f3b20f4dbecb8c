"""Writing files so that a reader sees the old one or the whole new one, never a part."""

import contextlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edge_medgemma.runtime.errors import ResourceError

_TOKEN = re.compile("[0-9a-f]{12}")
"""What ends the name of a temporary path"""


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """A block whose errors of the system are raised as a ResourceError that names `path`."""
    try:
        yield
    except ResourceError:
        raise
    except OSError as error:
        raise ResourceError(f"could not write '{path}': {error.strerror or error}") from error


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` through a temporary name, fsync and rename.

    Raises:
        ResourceError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    with new_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def new_file(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """A temporary file beside `path`, locked, that replaces `path` when the block succeeds.

    Args:
        path: to write; its folder is made where it is missing
        mode: of the file; by default as `open` leaves it, that of the file it replaces, or 0666 less
            the user's umask

    Raises:
        ResourceError: the disk is full, the folder cannot be written, or `path` is a device; it is as
            it was.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_device(path)
        if mode is None:
            with contextlib.suppress(OSError):
                mode = stat.S_IMODE(path.stat().st_mode) & 0o777
        handle, lock, temporary = _new_temporary(path, 0o666 if mode is None else mode)
        try:
            with os.fdopen(handle, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            if lock is not None:
                os.close(lock)


def _refuse_device(path: Path) -> None:
    """A rename would put a file in place of /dev/null for every program of the machine.

    Raises:
        ResourceError: `path` is a device, a pipe or a socket.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ResourceError(f"could not write '{path}': it is no regular file; name a file")


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory beside `path` that becomes `path` when the block succeeds.

    Those of earlier runs for `path` that were killed are deleted first.

    Raises:
        ResourceError: `path` exists already, or the disk is full; nothing is left behind.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ResourceError(f"'{path}' exists already; choose another place or remove it")
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_directories(path)
        temporary = _temporary_path(path)
        temporary.mkdir()
        lock = _directory_lock(temporary)
        try:
            yield temporary
            if path.exists():
                path.rmdir()
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            if lock is not None:
                os.close(lock)


def _sweep_directories(path: Path) -> None:
    """Delete temporary directories of `new_directory(path)` whose writer was killed."""
    begin = f".{path.name}."
    for found in path.parent.iterdir():
        is_ours = found.name.startswith(begin) and _TOKEN.fullmatch(found.name[len(begin) :])
        if is_ours and found.is_dir() and not found.is_symlink():
            lock = _directory_lock(found)  # the system drops it with the process that held it
            if lock is not None:
                shutil.rmtree(found, ignore_errors=True)
                os.close(lock)


def _directory_lock(folder: Path) -> int | None:
    """A descriptor that holds the lock of `folder`; None where another has it or none can be had."""
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        _lock(descriptor)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def remove_abandoned(temporary: Path) -> bool:
    """Delete a temporary file of `new_file` whose writer was killed; False where it lives.

    The system drops a lock with the process that held it, whatever ended it. Where there are no
    such locks (Windows) a file in use cannot be deleted anyway.
    """
    try:
        with temporary.open("rb") as file:
            _lock(file.fileno())
            temporary.unlink()
    except OSError:
        return False
    return True


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def _new_temporary(path: Path, mode: int) -> tuple[int, int | None, str]:
    """Descriptor of a temporary file, a second descriptor that holds its lock, and its path."""
    while True:
        temporary = str(_temporary_path(path))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        handle = os.open(temporary, flags, mode)  # the system takes the umask off
        if sys.platform == "win32":
            return handle, None, temporary
        lock = os.dup(handle)  # outlives the file object: no moment between writing and renaming
        with contextlib.suppress(OSError):  # not every file system has locks
            _lock(lock)
        if os.path.exists(temporary):  # else swept as abandoned before it was locked
            return handle, lock, temporary
        os.close(lock)
        os.close(handle)


def _lock(descriptor: int) -> None:
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
