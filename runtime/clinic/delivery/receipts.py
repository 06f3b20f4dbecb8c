"""What one destination has got of one result: a file beside the objects, which is the truth."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_medgemma.runtime.clinic.delivery.manifest import RECEIPT_FOLDER
from edge_medgemma.runtime.clinic.delivery.problems import DeliveryProblem
from edge_medgemma.runtime.clinic.state_folder import sync_folder
from edge_medgemma.runtime.documents import dump_sealed, parse_sealed
from edge_medgemma.runtime.files import write_atomically

MAX_TRANSACTIONS = 64
"""Requests for commitment whose late answers are still taken."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """State of a delivery. An empty one says that sending has begun."""

    receipt_version: Literal[1] = 1
    stored: dict[str, str] = field(default_factory=dict)
    """SOP Instance UID to the SOP class as which it was stored; `fhir`, `hl7`, `folder` of the others."""
    transactions: tuple[str, ...] = ()
    """UIDs of the requests for storage commitment, the newest last."""
    confirmed: tuple[str, ...] = ()
    """SOP Instance UIDs that the archive says it keeps."""
    has_no_commitment: bool = False
    """Whether the archive does not offer storage commitment: that it stored them is all that is known."""
    attempts: int = 0
    """That failed since something last went well."""
    problem: DeliveryProblem | None = None
    """Of the last attempt; None where it went well."""
    delivered_at: str = ""
    """UTC, ISO 8601; empty while something is owed."""


def read_receipt(folder: Path, destination: str) -> Receipt | None:
    """The receipt of a destination; None where nothing has begun, or the file was torn.

    Without it everything is sent once more, as the same objects.
    """
    try:
        return parse_sealed(_path(folder, destination).read_bytes(), Receipt)
    except (OSError, ValueError):
        return None


def write_receipt(folder: Path, destination: str, receipt: Receipt) -> None:
    """Replace a receipt, on the disk when this returns.

    Raises:
        ResourceError: the disk is full.
    """
    path = _path(folder, destination)
    write_atomically(path, dump_sealed(receipt).encode())
    with contextlib.suppress(OSError):
        sync_folder(path.parent)


def _path(folder: Path, destination: str) -> Path:
    return folder / RECEIPT_FOLDER / f"{destination}.json"
