"""What a trial found out about this machine, kept by what it depends on: a small sealed JSON file each."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from edge_medgemma.runtime.documents import Sha256, dump_sealed, parse_sealed
from edge_medgemma.runtime.store.keys import hashed_key, program_identity
from edge_medgemma.runtime.store.ownership import read_own, write_own


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a trial."""

    fault: str | None
    """What went wrong, a sentence; None where all was well."""
    culprit: str = ""
    """Whose code was at work."""


@dataclass(frozen=True, slots=True)
class _Document:
    key: Sha256
    verdict: Verdict


class CachedVerdict:
    """The verdict that this very program came to on this machine.

    A file that is missing, altered, of another program or machine, or writable by others is none.
    """

    def __init__(self, folder: Path, *depends_on: str) -> None:
        """Use a file of `folder`, named by a hash of all that the verdict depends on.

        Args:
            folder: need not exist
            depends_on: all but the program: machine, library, what was tried
        """
        self._key = hashed_key(program_identity(), *depends_on)
        self._path = folder / f"{self._key}.json"

    def read(self) -> Verdict | None:
        """The verdict; None where there is none to believe."""
        try:
            document = parse_sealed(read_own(self._path), _Document)
        except (OSError, ValueError, RecursionError):
            return None
        return document.verdict if document.key == self._key else None

    def write(self, verdict: Verdict) -> None:
        """Keep it; with a full disk or a read-only home the next run tries again, nothing else."""
        with contextlib.suppress(OSError):
            write_own(self._path, dump_sealed(_Document(self._key, verdict)).encode())
