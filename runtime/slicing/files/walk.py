"""Walking a scan folder: every file, and why some are left alone, whatever lies in it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edge_medgemma.runtime.slicing.files.discovery import Entry
from edge_medgemma.runtime.slicing.files.limits import MAX_FOLDERS

_CLOSED = "cannot be opened; check its permissions"

_SPECIAL_FILES = (
    (stat.S_ISFIFO, "named pipe, not a file"),
    (stat.S_ISSOCK, "socket, not a file"),
    (stat.S_ISBLK, "device, not a file"),
    (stat.S_ISCHR, "device, not a file"),
    (stat.S_ISDIR, "folder in place of a file"),
)


def walk_files(scan: Path) -> Iterator[Entry]:
    """Every entry below `scan`, of each folder in sorted order.

    Nothing outside the folder is visited: links to folders are not followed, and links to files
    only when they end inside. DICOMDIR is ignored, its references could name any path.
    """
    root = scan.resolve()
    if not os.path.isdir(root):  # unlike that of Path, it raises nothing
        yield Entry(root, root.name, _reason_to_leave(root, root))
        return
    for path, reason in _walk(root):
        yield Entry(path, path.relative_to(root).as_posix(), reason)


def _walk(root: Path) -> Iterator[tuple[Path, str | None]]:
    """Without recursion: folders may be nested deeper than Python's stack."""
    waiting, visited = [root], 0
    while waiting:
        folder = waiting.pop()
        visited += 1
        if visited > MAX_FOLDERS:
            yield folder, f"beyond {MAX_FOLDERS:,} folders; choose one study's folder"
            return
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            yield folder, f"folder that {_CLOSED}"
            continue
        for entry in entries:
            if not _is_folder(entry):
                path = folder / entry.name
                yield path, _reason_to_leave(path, root)
        waiting.extend(folder / entry.name for entry in reversed(entries) if _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _reason_to_leave(path: Path, root: Path) -> str | None:
    is_link = os.path.islink(path)
    try:
        mode = path.stat().st_mode
        if is_link and stat.S_ISDIR(mode):
            return "link to a folder, not followed"
        if is_link and not path.resolve(strict=True).is_relative_to(root):
            return "link to a file outside the scan folder, not followed"
    except (OSError, RuntimeError, ValueError):  # a loop of links is a RuntimeError up to 3.12
        return "link that leads nowhere" if is_link else _CLOSED
    for is_kind, name in _SPECIAL_FILES:
        if is_kind(mode):
            return name
    if path.name.upper() == "DICOMDIR":
        return "DICOMDIR, not followed: the files themselves are read"
    return None
