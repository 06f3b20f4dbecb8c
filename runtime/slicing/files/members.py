"""What an archive holds, member by member, whatever kind of archive it is."""

from collections.abc import Iterator
from dataclasses import dataclass

DAMAGED = "damaged in its archive"
LINK = "link in an archive, not followed"


class MemberError(Exception):
    """A member that cannot be unpacked; its message is the reason. The others can."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file, or what is left out for a reason; a folder has neither content nor reason."""

    name: str
    """As the archive says: never a path here. Empty for the one file of a gzip."""
    content: Iterator[bytes] | None = None
    """Chunks, to be taken before the next member; its damage is raised from here."""
    reason: str | None = None
