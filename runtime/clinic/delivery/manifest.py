"""A folder of the outbox: what was made of one result, and for whom. Nothing in it names a patient.

STATE/outbox/KEY-NUMBER/
    manifest.json       what lies here and where it is to go, sealed
    *.dcm               objects for archives
    bundle-NAME.json    for one health-record system
    oru.hl7             for all of them
    receipts/NAME.json  what one destination has got and confirmed
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_medgemma.runtime.clinic.settings import ClinicSettings, HealthRecord, Peer, ResultKind
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.documents import Count, Sha256, dump_sealed, parse_sealed
from edge_medgemma.runtime.errors import DeliveryError
from edge_medgemma.runtime.triage.urgency import Urgency

MANIFEST_FILE = "manifest.json"
ORU_FILE = "oru.hl7"
RECEIPT_FOLDER = "receipts"

_ENTRY_NAME = re.compile("([0-9a-f]{32})-([1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """One DICOM object of the folder."""

    kind: ResultKind
    file: str
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class Manifest:
    """Content of manifest.json."""

    manifest_version: Literal[1]
    study_key: str
    study_uid: str
    number: Count
    created_at: str
    """Of the result."""
    urgency: Urgency
    """The most urgent goes first."""
    report_uid: str
    """Names the result in FHIR and HL7."""
    objects: tuple[ObjectEntry, ...]
    """In the order in which they are sent."""
    documents: dict[str, Sha256]
    """Other files to their hashes."""
    destinations: tuple[str, ...]
    """Names of the settings' peers and health records when this was made."""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One folder of the outbox."""

    folder: Path
    study_key: str
    number: int


def bundle_file(name: str) -> str:
    """File of the bundle for one health-record system."""
    return f"bundle-{name}.json"


def entry_folder(state: StateFolder, study_key: str, number: int) -> Path:
    """Where the objects of a result are, or will be."""
    return state.outbox / f"{study_key}-{number}"


def entries(state: StateFolder) -> tuple[OutboxEntry, ...]:
    """All folders of the outbox, by study and number; each appeared whole."""
    found = []
    for name in os.listdir(state.outbox) if state.outbox.is_dir() else ():
        match = _ENTRY_NAME.fullmatch(name)
        if match:
            found.append(OutboxEntry(state.outbox / name, match[1], int(match[2])))
    return tuple(sorted(found, key=lambda entry: (entry.study_key, entry.number)))


def latest_entries(state: StateFolder) -> tuple[OutboxEntry, ...]:
    """Of each study the newest: only it leaves."""
    return tuple({entry.study_key: entry for entry in entries(state)}.values())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an outbox folder.

    Raises:
        DeliveryError: it is missing or altered.
    """
    try:
        return parse_sealed((folder / MANIFEST_FILE).read_bytes(), Manifest)
    except (OSError, ValueError) as error:
        raise DeliveryError(
            f"what was made for delivery of study {folder.name[:8]} cannot be read ({error}); triage it again"
        ) from None


def manifest_bytes(manifest: Manifest) -> bytes:
    """Content of the file."""
    return dump_sealed(manifest).encode()


def receivers(settings: ClinicSettings) -> dict[str, Peer | HealthRecord]:
    """Name to whoever is sent results."""
    to: list[Peer | HealthRecord] = [peer for peer in settings.peers if peer.results]
    to += settings.health_records
    return {one.name: one for one in to}
