"""Keys of what is cached: hashes of everything that a value depends on, the program among it."""

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CODE_SUFFIXES = (".py", ".c", ".h", ".so", ".pyd", ".dylib")
"""Sources, and the kernels that were compiled from them."""

LIBRARIES = ("edge-medgemma", "numpy", "tokenizers", "jinja2", "pillow")
"""Distributions that have a say in tokens and pixels; a backend names its own libraries."""


def hashed_key(*parts: str | bytes) -> str:
    """Hexadecimal SHA-256 of a list of parts; no two lists have the same one."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))  # no two lists of parts run together
        digest.update(data)
    return digest.hexdigest()


@cache
def program_identity() -> str:
    """The program's version, hash of its own files, and versions of the libraries it computes with.

    What a program computed before it was corrected must not be taken for what it computes now.
    Hashing 1.6 MB takes 5 ms, once a process.
    """
    runtime = Path(__file__).parents[1]
    return " ".join([*map(_named_version, LIBRARIES), hashed_code(runtime)])


def hashed_code(folder: Path) -> str:
    """SHA-256 of names and contents of all code in a folder of the program."""
    files = sorted(_code_files(folder))
    return hashed_key(
        *(part for path in files for part in (str(path.relative_to(folder)), path.read_bytes()))
    )


def _code_files(folder: Path) -> Iterator[Path]:
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in ("__pycache__", "engines")]
        yield from (Path(path, name) for name in names if name.endswith(CODE_SUFFIXES))


def _named_version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} unknown"
