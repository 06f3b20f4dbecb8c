"""Intermediate results of a calibration on disk: a run that was killed goes on where it stopped."""

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.files import new_file, write_atomically

IDENTITY_NAME = "identity.json"
NOTE = "note"

DAMAGE: tuple[type[Exception], ...] = (
    ValueError, KeyError, TypeError, OSError, EOFError, SyntaxError, NotImplementedError,
    OverflowError, MemoryError, RecursionError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What zipfile and numpy raise on a file with altered bytes."""

Arrays = Mapping[str, NDArray[np.generic]]


class State:
    """A folder of named groups of arrays, each group there whole or not at all."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Open `folder`; what another run (engine, slices, seed, version) left in it is removed.

        Raises:
            ResourceError: the folder cannot be written.
        """
        self.folder = folder
        text = json.dumps(identity, sort_keys=True)
        path = folder / IDENTITY_NAME
        self.resumed = path.is_file() and path.read_text(encoding="utf-8") == text
        if not self.resumed:
            for old in (*folder.glob("*.npz"), *folder.glob(".*.npz.*")):
                old.unlink()
            write_atomically(path, text.encode())

    def has(self, name: str) -> bool:
        """Whether the group is there."""
        return self._path(name).is_file()

    def save(self, name: str, arrays: Arrays, note: Mapping[str, Any] | None = None) -> None:
        """Write a group through a temporary name; `note` is anything that JSON can say.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        save_group(self._path(name), arrays, note)

    def load(self, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and note of a group that is there."""
        return load_group(self._path(name))

    def drop(self, name: str) -> None:
        """Remove a group that is no longer needed."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


def save_group(path: Path, arrays: Arrays, note: Mapping[str, Any] | None = None) -> None:
    """Write a file of arrays and a note, whole or not at all.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    with new_file(path, mode=0o600) as file:
        text = json.dumps({"names": sorted(arrays), "note": note or {}})
        np.savez(file, allow_pickle=False, **{NOTE: np.array(text)}, **arrays)


def load_group(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and note of a file that `save_group` wrote, every array compared with its CRC.

    Raises:
        EngineError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        written: dict[str, Any] = json.loads(str(arrays.pop(NOTE)))
        if written["names"] != sorted(arrays):  # the CRCs are of contents, not of names
            raise ValueError("arrays are missing")
        note: dict[str, Any] = written["note"]
    except DAMAGE as error:
        raise EngineError(f"'{path}' is damaged ({error}); delete it and calibrate again") from None
    return arrays, note
