"""Unique identifiers that follow from what they name: built twice, an object is the same object."""

import uuid

_NAMESPACE = uuid.UUID("b1f9a7c2-6f3e-5a0e-9d5e-3c1d8f0b7a64")
"""Of this program, chosen once at random."""


def derived_uuid(*parts: str) -> uuid.UUID:
    """The name-based UUID (RFC 9562 5.5, version 5) of `parts`, in their order."""
    return uuid.uuid5(_NAMESPACE, "\x1f".join(parts))


def derived_uid(*parts: str) -> str:
    """The same as a DICOM UID under the root 2.25. PS3.5 B.2"""
    return f"2.25.{derived_uuid(*parts).int}"
