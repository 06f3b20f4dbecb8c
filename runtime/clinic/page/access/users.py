"""Who may log in, and how the first of them is made."""

import base64
import contextlib
import hashlib
import hmac
import re
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime

from edge_medgemma.runtime.clinic.page.access.shared_file import SharedFile
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import AccessError
from edge_medgemma.runtime.files import new_file, write_errors

NAME = re.compile(r"[^\W_][\w .'@+-]{0,63}")
SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 256

_COST, _BLOCK, _PARALLEL = 2**14, 8, 5
"""OWASP Password Storage Cheat Sheet: scrypt with 16 MB; a quarter of a second on a small computer."""


@dataclass(frozen=True, slots=True)
class User:
    """One person."""

    name: str
    salt: str
    """Base64, as the hash."""
    password_hash: str
    added_at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True)
class UserList:
    """The file of users."""

    users: tuple[User, ...] = ()


class Users:
    """The people of one state folder."""

    def __init__(self, state: StateFolder) -> None:
        """Of a state folder that was made."""
        self._state = state
        self._file = SharedFile(state.users_file, UserList, UserList())

    def names(self) -> tuple[str, ...]:
        """Of all users, ordered."""
        return tuple(sorted(user.name for user in self._file.read().users))

    def find(self, name: str) -> User | None:
        """One user; None where nobody has that name."""
        return next((one for one in self._file.read().users if one.name == name), None)

    def add(self, name: str, password: str, *, is_first: bool = False) -> str:
        """Add a user, or refuse one that exists.

        Args:
            name: stands in the audit and beside acknowledgements
            password: kept as a hash only
            is_first: refuse where there are users already

        Returns:
            The name as it is kept.

        Raises:
            AccessError: the name or the password will not do, or the name is taken.
            ResourceError: the disk is full.
        """
        name = checked_name(name)
        _check_password(password)
        salt = secrets.token_bytes(16)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        user = User(name, _base64(salt), _base64(_hash(password, salt)), now)

        def add(document: UserList) -> UserList:
            if is_first and document.users:
                raise AccessError("the box has users already; log in")
            if any(one.name.casefold() == name.casefold() for one in document.users):
                raise AccessError(f"there is a user '{name}' already; choose another name")
            return UserList((*document.users, user))

        self._file.change(add)
        with contextlib.suppress(OSError):
            self._state.setup_code_file.unlink(missing_ok=True)
        return name

    def remove(self, name: str) -> None:
        """Remove a user, whose sessions end with it.

        Raises:
            AccessError: nobody has that name.
        """

        def remove(document: UserList) -> UserList:
            kept = tuple(one for one in document.users if one.name != name)
            if len(kept) == len(document.users):
                raise AccessError(f"there is no user '{name}'; 'clinic user list' names all")
            return UserList(kept)

        self._file.change(remove)

    def check(self, name: str, password: str) -> User | None:
        """The user of that name and password; takes as long for a name that nobody has."""
        user = self.find(unicodedata.normalize("NFC", name.strip()))
        salt = base64.b64decode(user.salt) if user else b"\0" * 16
        expected = base64.b64decode(user.password_hash) if user else b"\0" * 32
        found = _hash(password[:LONGEST_PASSWORD], salt)
        return user if hmac.compare_digest(found, expected) and user is not None else None

    def setup_code(self) -> str | None:
        """The code that makes the first user, made where there is none; None once there are users.

        Raises:
            ResourceError: the disk is full.
        """
        if self._file.read().users:
            return None
        path = self._state.setup_code_file
        with contextlib.suppress(OSError, ValueError):
            code = path.read_text(encoding="ascii").strip()
            if re.fullmatch("[0-9]{8}", code):
                return code
        code = f"{secrets.randbelow(10**8):08d}"
        with write_errors(path), new_file(path, mode=0o600) as file:
            file.write(f"{code}\n".encode())
        return code

    def is_setup_code(self, code: str) -> bool:
        """Whether it is the code, and there are no users yet."""
        expected = self.setup_code()
        given = re.sub(r"[\s-]", "", code)
        return expected is not None and hmac.compare_digest(given.encode(), expected.encode())


def checked_name(name: str) -> str:
    """The name without blanks around it.

    Raises:
        AccessError: it is no name that can stand in a list and in the audit.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not NAME.fullmatch(name):
        raise AccessError(
            "a name has 1 to 64 letters, digits, blanks and . ' @ + -, and begins with a letter or digit"
        )
    return name


def _check_password(password: str) -> None:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise AccessError(
            f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters; a few words will do"
        )


def _hash(password: str, salt: bytes) -> bytes:
    text = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    return hashlib.scrypt(
        text, salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL, maxmem=64 * 2**20, dklen=32
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
