"""Messages of protobuf, field by field: a device has no onnx package.

Wire format: protobuf.dev, "Encoding".
"""

import struct
from collections.abc import Iterator

Field = tuple[int, int | bytes]
"""Number and value; of a message, a text or a number of fixed width its bytes."""


def fields(message: bytes) -> Iterator[Field]:
    """Those of a message, in order.

    Raises:
        ValueError, IndexError, KeyError: it is cut short, or no message.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}[kind]
        if position + size > len(message):
            raise ValueError("it is cut short")
        yield key >> 3, message[position : position + size]
        position += size


def text_of(message: bytes, wanted: int) -> str:
    """A text field; empty where there is none."""
    return next(
        (bytes_of(value).decode() for field, value in fields(message) if field == wanted), ""
    )


def bytes_of(value: int | bytes) -> bytes:
    """The value of a field that is a message or a text.

    Raises:
        TypeError: it is a number.
    """
    if not isinstance(value, bytes):
        raise TypeError("a number stands for a message")
    return value


def number_of(value: int | bytes) -> int:
    """The value of a field that is a number.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, int):
        raise TypeError("a message stands for a number")
    return value


def varints(message: bytes) -> Iterator[int]:
    """Packed numbers."""
    position = 0
    while position < len(message):
        value, position = _varint(message, position)
        yield value


def integer_field(field: int, value: int) -> bytes:
    """A number; a negative one is two's complement of 64 bits."""
    return _varint_bytes(field << 3) + _varint_bytes(value)


def float_field(field: int, value: float) -> bytes:
    """A number of 32 bits."""
    return _varint_bytes(field << 3 | 5) + struct.pack("<f", value)


def text_field(field: int, value: str) -> bytes:
    """A text."""
    return bytes_field(field, value.encode())


def bytes_field(field: int, value: bytes) -> bytes:
    """A message."""
    return _varint_bytes(field << 3 | 2) + _varint_bytes(len(value)) + value


def same_field(number: int, value: int | bytes) -> bytes:
    """A field of `fields` again, if it is not of fixed width."""
    return integer_field(number, value) if isinstance(value, int) else bytes_field(number, value)


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        shift, position = shift + 7, position + 1
        if byte < 0x80:
            return value, position


def _varint_bytes(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
