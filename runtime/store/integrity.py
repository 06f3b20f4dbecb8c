"""Check of an engine directory against its manifest; a large one is hashed once."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edge_medgemma.runtime.manifest import Manifest, verify_file
from edge_medgemma.runtime.store.number_cache import CachedNumbers
from edge_medgemma.runtime.store.places import Place

ALWAYS_HASHED_BYTES = 64 * 2**20
"""Engines up to this size are hashed at every start: it takes less than a tenth of a second."""


def check_engine(directory: Path, manifest: Manifest) -> None:
    """Check presence, size and SHA-256 of every file of the engine.

    The hashes of a large engine are computed once: a stamp in the user's cache folder remembers
    inode, size and times of the files that matched, and any change of these hashes them again.

    Raises:
        EngineError: a file is missing or altered.
    """
    for name, record in manifest.files.items():
        verify_file(directory, name, record, contents=False)
    total = sum(record.bytes for record in manifest.files.values())
    stamp = CachedNumbers(Place.CHECKED.folder, manifest.sha256, _state(directory, manifest))
    is_large = total > ALWAYS_HASHED_BYTES
    if is_large and stamp.read(["bytes"]) == {"bytes": total}:
        return
    with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter lock
        for _ in pool.map(lambda item: verify_file(directory, *item), manifest.files.items()):
            pass
    if is_large:
        stamp.write({"bytes": total})


def _state(directory: Path, manifest: Manifest) -> str:
    """Whatever changes when a file is written to or replaced, as text."""
    state = []
    for name in sorted(manifest.files):
        stat = (directory / name).stat()
        state.append(
            [name, stat.st_ino, stat.st_dev, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        )
    return json.dumps(state)
