"""Wheels as parts small enough to travel one at a time: `python parts.py cut|join`.

The wheels, in the order of their worth, are one stream of bytes; a part is a piece of it. The
first parts give the wheels that lie wholly within them: what comes last may stay behind.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MANIFEST_NAME = "manifest.json"
CHUNK_BYTES = 2**20


class PartsError(Exception):
    """Parts that cannot be joined, in one line."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file by its contents."""

    name: str
    size_bytes: int
    sha256: str
    group: str = ""
    """Folder of a wheel, named by its place in the order of worth; empty for a part"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was cut, in order."""

    wheels: tuple[FileRecord, ...]
    parts: tuple[FileRecord, ...]


def cut(wheels: Path, parts: Path, part_bytes: int) -> Manifest:
    """Cut the wheels of every folder in `wheels`, folders and files by name, into `parts`."""
    parts.mkdir(parents=True, exist_ok=True)
    for earlier in parts.iterdir():
        earlier.unlink()
    found = sorted(wheels.glob("*/*.whl"))
    if not found:
        raise PartsError(f"'{wheels}' holds no wheels, expected GROUP/NAME.whl")
    records = []
    for number, piece in enumerate(_pieces(found, part_bytes)):
        path = parts / f"part-{number:03d}"
        path.write_bytes(piece)
        records.append(_record(path))
    manifest = Manifest(tuple(_record(path, path.parent.name) for path in found), tuple(records))
    (parts / MANIFEST_NAME).write_text(json.dumps(asdict(manifest), indent=1) + "\n")
    return manifest


def join(parts: Path, wheels: Path) -> tuple[FileRecord, ...]:
    """Write the wheels that the parts there give into `wheels`; the wheels that are still missing.

    Raises:
        PartsError: no manifest, or a part or wheel with other contents than it says.
    """
    manifest = load_manifest(parts)
    wheels.mkdir(parents=True, exist_ok=True)
    stream = _Stream(parts, manifest.parts)
    for number, wheel in enumerate(manifest.wheels):
        target = wheels / wheel.name
        if not stream.copy(wheel.size_bytes, target):
            target.unlink(missing_ok=True)
            return manifest.wheels[number:]
        if _record(target).sha256 != wheel.sha256:
            raise PartsError(f"'{target}' is damaged; delete '{parts}' and transfer it again")
    return ()


def load_manifest(parts: Path) -> Manifest:
    """What stands in the manifest of a folder of parts.

    Raises:
        PartsError: there is none.
    """
    path = parts / MANIFEST_NAME
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise PartsError(f"'{path}' is missing; make it with tests/gpu/pack.sh") from None
    wheels, files = (
        tuple(FileRecord(**one) for one in document[name]) for name in ("wheels", "parts")
    )
    return Manifest(wheels, files)


def table(manifest: Manifest) -> str:
    """How many parts each group of wheels needs, all before it included; a line each."""
    part_bytes = manifest.parts[0].size_bytes
    lines, total = [], 0
    for group in dict.fromkeys(wheel.group for wheel in manifest.wheels):
        sizes = [wheel.size_bytes for wheel in manifest.wheels if wheel.group == group]
        total += sum(sizes)
        parts = -(-total // part_bytes)
        lines.append(
            f"{group:24} {len(sizes):3} wheels {sum(sizes) / 1e6:6.1f} MB, complete after "
            f"{parts} parts"
        )
    return "\n".join(lines)


class _Stream:
    """The bytes of the parts, one part after the other, up to the first one that is not there."""

    def __init__(self, folder: Path, parts: tuple[FileRecord, ...]) -> None:
        self._left = b""
        self._blocks = self._read(folder, parts)

    def copy(self, size_bytes: int, target: Path) -> bool:
        """Write the next `size_bytes` into a file; False where the parts end before."""
        with target.open("wb") as file:
            while size_bytes:
                block = self._left or next(self._blocks, b"")
                if not block:
                    return False
                file.write(block[:size_bytes])
                self._left = block[size_bytes:]
                size_bytes -= len(block) - len(self._left)
        return True

    @staticmethod
    def _read(folder: Path, parts: tuple[FileRecord, ...]) -> Iterator[bytes]:
        for part in parts:
            path = folder / part.name
            if not path.is_file():
                return
            if _record(path).sha256 != part.sha256:
                raise PartsError(f"'{path}' is damaged; transfer it again")
            with path.open("rb") as file:
                while block := file.read(CHUNK_BYTES):
                    yield block


def _pieces(paths: list[Path], part_bytes: int) -> Iterator[bytes]:
    piece = bytearray()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(part_bytes - len(piece)):
                piece += block
                if len(piece) == part_bytes:
                    yield bytes(piece)
                    piece.clear()
    if piece:
        yield bytes(piece)


def _record(path: Path, group: str = "") -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(path.name, path.stat().st_size, digest, group)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    for name in ("cut", "join"):
        action = actions.add_parser(name)
        action.add_argument("--wheels", type=Path, required=True)
        action.add_argument("--parts", type=Path, required=True)
        if name == "cut":
            action.add_argument("--part-bytes", type=int, required=True)
    arguments = parser.parse_args()
    try:
        if arguments.action == "cut":
            manifest = cut(arguments.wheels, arguments.parts, arguments.part_bytes)
            print(table(manifest))
            print(f"{len(manifest.parts)} parts of {arguments.part_bytes / 1e6:.1f} MB in all")
            return
        missing = join(arguments.parts, arguments.wheels)
        for group in dict.fromkeys(wheel.group for wheel in missing):
            names = ", ".join(wheel.name for wheel in missing if wheel.group == group)
            print(f"did not travel: {group} ({names})")
    except PartsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
