"""Files that only the user can have written: those of another, or that others can write, are not used.

Whoever can write a cache can say what a program finds in it. This holds for the user's cache, not
for engine directories, which are shared on purpose and checked against their manifest.
"""

import errno
import logging
import os
import stat
from pathlib import Path

from edge_medgemma.runtime.files import new_file
from edge_medgemma.runtime.store.places import Place, cache_folder

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

LOG = logging.getLogger(__name__)

_told: set[str] = set()
"""What was logged: each reason once a process."""


def distrust(path: Path) -> str:
    """Why a folder or file of the cache is not used, a sentence; empty where it is fine or absent."""
    try:
        return _distrust(path.stat(), path)
    except OSError:
        return ""


def distrusted_places() -> list[str]:
    """Why folders of the user's cache are not used, a sentence each."""
    folders = (cache_folder(), *(place.folder for place in Place))
    return list(filter(None, map(distrust, folders)))


def require_own_folder(folder: Path) -> None:
    """Refuse a cache folder that others can fill, or that lies in one; its absence is fine.

    Raises:
        PermissionError: it is not used; the reason is logged once a process.
    """
    inside_cache = cache_folder() in folder.parents
    for one in (cache_folder(), folder) if inside_cache else (folder,):
        _raise(distrust(one))


def make_own_folder(folder: Path) -> None:
    """Make a cache folder that only the user can read and write (mode 0700), or make it so.

    Raises:
        PermissionError: it is not used.
        OSError: it cannot be made.
    """
    require_own_folder(folder)
    cache = cache_folder()
    for one in (cache, folder) if cache in folder.parents else (folder,):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def read_own(path: Path) -> bytes:
    """Contents of a cache file.

    Raises:
        PermissionError: others can write it or its folder.
        OSError: it does not exist or cannot be read.
    """
    require_own_folder(path.parent)
    with open(path, "rb", opener=_opened_at_once) as file:
        status = os.fstat(file.fileno())
        _raise(_distrust(status, path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "no file", str(path))
        return file.read()


def require_own_file(path: Path) -> None:
    """Refuse a cache file that others can write, or whose folder they can; its absence is fine.

    Raises:
        PermissionError: it is not used.
    """
    require_own_folder(path.parent)
    _raise(distrust(path))


def write_own(path: Path, data: bytes) -> None:
    """Write a cache file that only the user can read (mode 0600 in 0700).

    Raises:
        OSError: it cannot be written, or its folder is not used.
    """
    make_own_folder(path.parent)
    with new_file(path, mode=0o600) as file:
        file.write(data)


def _opened_at_once(path: str, flags: int) -> int:
    """A pipe that nobody writes would be waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _distrust(status: os.stat_result, path: Path) -> str:
    kind = "folder" if stat.S_ISDIR(status.st_mode) else "file"
    if not hasattr(os, "geteuid"):
        return ""
    if status.st_uid != os.geteuid():
        return f"the cache {kind} '{path}' is not used: another user owns it; remove it"
    if status.st_mode & WRITABLE_BY_OTHERS:
        return f"the cache {kind} '{path}' is not used: other users can write it; run chmod go-w"
    return ""


def _raise(reason: str) -> None:
    if not reason:
        return
    if reason not in _told:
        _told.add(reason)
        LOG.warning("%s", reason)
    raise PermissionError(errno.EPERM, reason)
