"""multipart bodies (RFC 2046, 5.1) read piece by piece; nothing of a part is kept."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

MOST_HEADER_BYTES = 8192
MOST_PARTS = 50_000
BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


class MultipartError(Exception):
    """A body that is no whole multipart message."""


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part begins."""

    content_type: str
    """Of its header, lower case, without parameters; empty where it does not say."""


@dataclass(frozen=True, slots=True)
class PartData:
    """Bytes of the part that began last."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is whole."""


Event = PartBegin | PartData | PartEnd


class _At(Enum):
    PREAMBLE = auto()
    DELIMITER = auto()
    HEADERS = auto()
    BODY = auto()
    EPILOGUE = auto()


class MultipartReader:
    """Turns pieces of a body into events."""

    def __init__(self, boundary: str) -> None:
        """Of a body with this boundary.

        Raises:
            MultipartError: no boundary by RFC 2046.
        """
        if not BOUNDARY.fullmatch(boundary):
            raise MultipartError("the boundary is missing or no boundary")
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._buffer = bytearray(b"\r\n")  # the first delimiter may stand at the very beginning
        self._at = _At.PREAMBLE
        self._parts = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events of one more piece; go through all of them before the next.

        Raises:
            MultipartError: the body breaks the rules, or has too many parts or headers.
        """
        self._buffer += data
        while True:
            before = self._at, len(self._buffer)
            yield from self._step()
            if (self._at, len(self._buffer)) == before:
                return

    def close(self) -> None:
        """Say that there is no more.

        Raises:
            MultipartError: the body was broken off before its last delimiter.
        """
        if self._at is not _At.EPILOGUE:
            raise MultipartError("the body was broken off before its end")

    def _step(self) -> Iterator[Event]:
        if self._at is _At.EPILOGUE:
            self._buffer.clear()
        elif self._at is _At.DELIMITER:
            self._read_delimiter()
        elif self._at is _At.HEADERS:
            yield from self._read_headers()
        else:
            yield from self._read_to_delimiter()

    def _read_to_delimiter(self) -> Iterator[Event]:
        is_body = self._at is _At.BODY
        end = self._buffer.find(self._delimiter)
        # What may begin a delimiter waits for the next piece.
        passed = len(self._buffer) - len(self._delimiter) + 1 if end < 0 else end
        if passed > 0:
            if is_body:
                yield PartData(bytes(self._buffer[:passed]))
            del self._buffer[:passed]
        if end >= 0:
            del self._buffer[: len(self._delimiter)]
            self._at = _At.DELIMITER
            if is_body:
                yield PartEnd()

    def _read_delimiter(self) -> None:
        if self._buffer.startswith(b"--"):
            self._at = _At.EPILOGUE
            return
        end = self._buffer.find(b"\r\n")
        if end >= 0:
            if self._buffer[:end].strip(b" \t"):
                raise MultipartError("a delimiter line holds more than the boundary")
            del self._buffer[:end]  # the line's end also ends an empty header block
            self._at = _At.HEADERS
        elif len(self._buffer) > MOST_HEADER_BYTES:
            raise MultipartError("a delimiter line has no end")

    def _read_headers(self) -> Iterator[Event]:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MOST_HEADER_BYTES or (end < 0 and len(self._buffer) > MOST_HEADER_BYTES):
            raise MultipartError("the headers of a part are too long")
        if end < 0:
            return
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise MultipartError(f"more than {MOST_PARTS:,} parts")
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(":", 1) for line in lines if ":" in line)
        content_type = headers.get("content-type", "").partition(";")[0].strip()
        del self._buffer[: end + 4]
        self._at = _At.BODY
        yield PartBegin(content_type)
