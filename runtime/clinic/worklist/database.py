"""The database file: one sealed document a study in SQLite, every commit on the disk.

SQLite notices a damaged page, but not a changed letter inside one: each document carries a hash of
itself and its key. Whatever does not fit makes the file damaged; it is moved aside and made again from
the folders. Every transaction holds a lock that whoever does so takes alone, so that nobody writes into
a file that was moved.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import RLock

import msgspec

from edge_medgemma.runtime.clinic.worklist.entry import Entry
from edge_medgemma.runtime.errors import ResourceError

SCHEMA_VERSION = 1
"""A file of another version is made again as well: there is nothing in it that the folders lack."""

DAMAGED_SUFFIX = ".damaged"

_BUSY_TIMEOUT_S = 30
_MOST_REPAIRS = 3
_NO_DAMAGE = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip
"""Errors of SQLite that say nothing against the file."""
_TABLE = (
    "CREATE TABLE studies (key TEXT PRIMARY KEY, document BLOB NOT NULL, seal BLOB NOT NULL) "
    "WITHOUT ROWID"
)

Make = Callable[[], Iterable[Entry]]


class _DamagedError(Exception):
    """The file is not what was written."""


class Database:
    """One connection; threads of a process may share it, one at a time."""

    def __init__(self, path: Path, make: Make) -> None:
        """Open or make the file.

        Args:
            path: of the file.
            make: gives the entries of a new file, from the folders.

        Raises:
            ResourceError: the folder cannot be written.
        """
        self._path = path
        self._make = make
        self._guard = RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._known: dict[str, tuple[bytes, Entry]] = {}
        self._known_version: int | None = None
        """`PRAGMA data_version` of `_known`; None where this connection has written since."""
        with _disk_errors(path):
            self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        with self.transaction(writes=False):
            pass

    def close(self) -> None:
        """Let go of the file."""
        with self._guard:
            self._disconnect()
            os.close(self._lock)

    @contextlib.contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator["Transaction"]:
        """Everything that the block reads and writes, in one commit; nothing of it if it raises.

        Without `writes`, the block only reads, and waits for no other process.

        Raises:
            ResourceError: the disk is full, or another process holds the file for half a minute.
        """
        with self._guard, _disk_errors(self._path):
            entries = self._begin("BEGIN IMMEDIATE" if writes else "BEGIN")
            try:
                transaction = Transaction(self._open_connection, entries)
                yield transaction
                if transaction.has_written:
                    self._known_version = None
                self._open_connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._open_connection.execute("ROLLBACK")
                raise
            finally:
                _flock(self._lock, unlock=True)

    @property
    def _open_connection(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def _begin(self, begin: str) -> dict[str, Entry]:
        """All entries inside a new transaction, under the shared lock, of a file that is whole."""
        try:
            for _ in range(_MOST_REPAIRS):
                _flock(self._lock)
                with contextlib.suppress(_DamagedError):
                    return self._read_all(begin)
                self._disconnect()
                _flock(self._lock, alone=True)
                self._replace_damaged()
            raise ResourceError(
                f"'{self._path}' is damaged as soon as it is written; check the disk, or name another "
                "folder"
            )
        except BaseException:
            _flock(self._lock, unlock=True)
            raise

    def _read_all(self, begin: str) -> dict[str, Entry]:
        if self._connection is None or not self._is_same_file():
            self._connect()
        connection = self._open_connection
        with _damage():
            connection.execute(begin)
        try:
            with _damage():
                return self._entries(connection)
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _entries(self, connection: sqlite3.Connection) -> dict[str, Entry]:
        """All studies; read again only where another connection has written, and parsed where changed."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if connection is self._connection and version == self._known_version:
            return {key: entry for key, (_, entry) in self._known.items()}
        known: dict[str, tuple[bytes, Entry]] = {}
        for key, document, seal in connection.execute("SELECT key, document, seal FROM studies"):
            if _seal(key, document) != seal:
                raise _DamagedError
            before = self._known.get(key)
            if before is None or before[0] != document:
                before = (document, msgspec.json.decode(document, type=Entry))
            known[key] = before
        self._known, self._known_version = known, version
        return {key: entry for key, (_, entry) in known.items()}

    def _is_same_file(self) -> bool:
        with contextlib.suppress(OSError):
            return os.stat(self._path).st_ino == self._inode
        return False

    def _connect(self) -> None:
        self._disconnect()
        if not self._path.exists():
            raise _DamagedError
        with _damage():
            self._connection = _connect(self._path)
            self._inode = os.stat(self._path).st_ino
            _check(self._connection)

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = self._known_version = None

    def _replace_damaged(self) -> None:
        """Make the file again, unless another process has done so while this one waited."""
        with contextlib.suppress(_DamagedError):
            self._connect()
            with _damage():
                self._entries(self._open_connection)
            return
        self._disconnect()
        for suffix in ("-wal", "-shm", ""):
            path = self._path.with_name(self._path.name + suffix)
            if path.exists():
                os.replace(path, path.with_name(path.name + DAMAGED_SUFFIX))
        connection = _connect(self._path)
        try:
            os.chmod(self._path, 0o600)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            writer = Transaction(connection, {})
            for entry in self._make():
                writer.put(entry)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        finally:
            connection.close()


class Transaction:
    """The studies, as they are inside one transaction."""

    def __init__(self, connection: sqlite3.Connection, entries: dict[str, Entry]) -> None:
        """By `Database.transaction`."""
        self._connection = connection
        self.has_written = False
        self.entries = entries
        """Study key -> entry; change it by `put` and `delete`."""

    def put(self, entry: Entry) -> None:
        """Write one study."""
        self.has_written = True
        key, document = entry.row.key, msgspec.json.encode(entry)
        self._connection.execute(
            "INSERT OR REPLACE INTO studies VALUES (?, ?, ?)", (key, document, _seal(key, document))
        )
        self.entries[key] = entry

    def delete(self, key: str) -> None:
        """Forget one study."""
        self.has_written = True
        self._connection.execute("DELETE FROM studies WHERE key = ?", (key,))
        self.entries.pop(key, None)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _check(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise _DamagedError
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise _DamagedError
    connection.execute(
        "BEGIN IMMEDIATE"
    )  # one bit of the header makes a file that can only be read
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("ROLLBACK")


def _seal(key: str, document: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + document).digest()


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """What SQLite or the decoder says of a file that is not what was written, as `_DamagedError`."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_DAMAGE:  # the low byte is the kind
            raise
        raise _DamagedError from error
    except (sqlite3.DatabaseError, ValueError, TypeError, AttributeError) as error:
        raise _DamagedError from error


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ResourceError(
            f"could not write '{path}': {error}; check space and permissions"
        ) from error
    except ResourceError:
        raise
    except OSError as error:
        raise ResourceError(f"could not write '{path}': {error.strerror or error}") from error


def _flock(descriptor: int, *, alone: bool = False, unlock: bool = False) -> None:
    import fcntl

    operation = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    fcntl.flock(descriptor, fcntl.LOCK_UN if unlock else operation)
