"""The private folder of one process for unpacked patients, and those that killed ones left."""

import atexit
import os
import shutil
import stat
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

from edge_medgemma.runtime.errors import ResourceError

try:
    import fcntl
except ImportError:  # Windows: no locks of this kind, so nothing is swept there
    fcntl = None  # type: ignore[assignment]

PREFIX = "edge-medgemma-unpacked-"
LOCK = "lock"

_numbers = count()


def new_folder() -> Path:
    """An empty folder that its owner alone can read and that goes when the process ends.

    Raises:
        ResourceError: none can be made.
    """
    try:
        folder = _process_folder(tempfile.gettempdir()) / f"{next(_numbers):06d}"
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise no_room(error) from error
    return folder


def no_room(error: OSError) -> ResourceError:
    """What to tell of a folder or file that could not be written."""
    return ResourceError(
        f"could not unpack an archive: {error.strerror or error}; free some space or set TMPDIR to "
        "a folder with more"
    )


def sweep_abandoned() -> None:
    """Delete what processes of this user unpacked that ended without doing so, by a kill.

    A living process holds a lock on a file in its folder; one that is gone holds none.
    """
    try:
        with os.scandir(tempfile.gettempdir()) as found:
            folders = [Path(entry.path) for entry in found if entry.name.startswith(PREFIX)]
    except OSError:  # it may be closed to this user, or there is none
        return
    for folder in folders:
        _sweep(folder)


@cache
def _process_folder(parent: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    atexit.register(_delete_at_end, folder, os.getpid())
    _lock(folder)
    return folder


def _delete_at_end(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a fork of it ends earlier
        _delete(folder)


def _lock(folder: Path) -> None:
    """Hold a lock until the process ends. Under its name the file is never seen unlocked."""
    if fcntl is None:
        return
    unlocked = folder / f"{LOCK}.new"
    handle = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without locks: the folder is never swept
        os.close(handle)
        return
    unlocked.rename(folder / LOCK)


def _sweep(folder: Path) -> None:
    if fcntl is None:
        return
    try:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _delete(folder)
    except OSError:
        pass
    finally:
        os.close(handle)


def _delete(folder: Path) -> None:
    """Delete a folder, its lock last: killed on the way, it is swept the next time."""
    for child in folder.glob("*/"):
        shutil.rmtree(child, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
