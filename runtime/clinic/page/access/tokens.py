"""Tokens of programs that use the API, kept as hashes."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from edge_medgemma.runtime.clinic.page.access.shared_file import SharedFile
from edge_medgemma.runtime.clinic.page.access.users import checked_name
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import AccessError

_PREFIX = "emg_"
"""Lets a secret scanner find a token that was put where it does not belong."""


@dataclass(frozen=True, slots=True)
class ProgramToken:
    """One program."""

    name: str
    sha256: str
    """Of its token, which has 256 random bits: a slow hash would add nothing."""
    added_at: str


@dataclass(frozen=True, slots=True)
class TokenList:
    """The file of tokens."""

    tokens: tuple[ProgramToken, ...] = ()


class Tokens:
    """The programs of one state folder."""

    def __init__(self, state: StateFolder) -> None:
        """Of a state folder that was made."""
        self._file = SharedFile(state.tokens_file, TokenList, TokenList())

    def names(self) -> tuple[str, ...]:
        """Of all programs, ordered."""
        return tuple(sorted(one.name for one in self._file.read().tokens))

    def add(self, name: str) -> str:
        """Let a program in; its token is returned this once.

        Raises:
            AccessError: the name will not do or is taken.
            ResourceError: the disk is full.
        """
        name = checked_name(name)
        token = _PREFIX + secrets.token_urlsafe(32)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = ProgramToken(name, _digest(token), now)

        def add(document: TokenList) -> TokenList:
            if any(one.name == name for one in document.tokens):
                raise AccessError(f"there is a token '{name}' already; remove it first")
            return TokenList((*document.tokens, entry))

        self._file.change(add)
        return token

    def remove(self, name: str) -> None:
        """Refuse a program from now on.

        Raises:
            AccessError: there is none of that name.
        """

        def remove(document: TokenList) -> TokenList:
            kept = tuple(one for one in document.tokens if one.name != name)
            if len(kept) == len(document.tokens):
                raise AccessError(f"there is no token '{name}'; 'clinic token list' names all")
            return TokenList(kept)

        self._file.change(remove)

    def find(self, token: str) -> str | None:
        """Name of the program that has this token."""
        digest = _digest(token)
        found = None
        for one in self._file.read().tokens:
            if hmac.compare_digest(one.sha256, digest):
                found = one.name
        return found


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
