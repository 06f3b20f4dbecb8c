"""Settings of a clinic's box: one TOML file, every field with a default."""

import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from edge_medgemma.runtime.documents import parse_document
from edge_medgemma.runtime.errors import SettingsError

AeTitle = Annotated[str, msgspec.Meta(pattern=r"^[ -\[\]-~]{1,16}$")]
"""PS3.5 6.2: 1 to 16 characters of the default repertoire without backslash; case matters."""

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Days = Annotated[float, msgspec.Meta(gt=0)]
Gigabytes = Annotated[float, msgspec.Meta(ge=0, le=1_000_000_000)]


class ResultKind(StrEnum):
    """What is made of a result for delivery."""

    SR = "sr"
    """Structured report, TID 1500."""
    KOS = "kos"
    """Key object selection of the key slices."""
    SC = "sc"
    """Key slices as pictures with the band of the urgency, for viewers that show nothing else."""
    PDF = "pdf"
    """The report as an encapsulated PDF."""


@dataclass(frozen=True, slots=True)
class Site:
    """The clinic, and what its page and papers may show."""

    name: str = ""
    language: str = "en"
    """Of page and report where a reader has not chosen one: tag of an installed language pack."""
    show_accession: bool = False
    """Whether accession numbers stand on page and paper."""
    show_patient: bool = False
    """Whether the page shows a patient's name, number and birth date, read from the files each time."""
    demonstration: bool = False
    """Whether the demo engine and random weights may speak about what arrives here."""


@dataclass(frozen=True, slots=True)
class Node:
    """How scans arrive by DICOM."""

    ae_title: AeTitle = "EDGEMEDGEMMA"
    port: Port = 11112
    tls_port: Port | None = None
    """With it, senders with a certificate of the box's own authority are received there too."""
    senders: tuple[AeTitle, ...] = ()
    """Calling AE titles that are let in; with none named, any from this machine and, with --lan, the
    peers' alone."""
    max_associations: Annotated[int, msgspec.Meta(ge=1, le=200)] = 20
    max_associations_per_address: Annotated[int, msgspec.Meta(ge=1, le=200)] = 8
    released_quiet_s: Seconds = 10
    """A study is looked at when its association has ended and nothing came for so long (half a second for
    ten slices or more without a gap),"""
    quiet_s: Seconds = 60
    """or when nothing came for so long although the association is still open."""
    give_up_s: Seconds = 600
    """What is known to be missing is waited for no longer than this; then it is said."""
    reserve_gb: Gigabytes = 2
    """Space that is kept free: below it, nothing is received."""


@dataclass(frozen=True, slots=True)
class Page:
    """The web page."""

    port: Port = 8080
    host_names: tuple[str, ...] = ()
    """Names under which the page may be called, besides those and the addresses of this machine."""
    plain_http: bool = False
    """Whether --lan serves the page without encryption: for a network of its own that ends here."""
    session_hours: Annotated[float, msgspec.Meta(gt=0)] = 12


@dataclass(frozen=True, slots=True)
class Peer:
    """An archive or scanner that this box calls."""

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,32}$")]
    ae_title: AeTitle
    host: str
    port: Port
    tls: bool = False
    query: bool = False
    """Whether it is asked how many images a study has."""
    results: tuple[ResultKind, ...] = ()
    """What it is sent."""
    commitment: bool = True
    """Whether it is asked to confirm by storage commitment that it keeps the results."""
    dicomweb_url: str | None = None
    """Root of its DICOMweb service, for a pull by WADO-RS."""


@dataclass(frozen=True, slots=True)
class HealthRecord:
    """A health-record system that is told of results; one of the addresses is given."""

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,32}$")]
    fhir_url: str | None = None
    """Base of a FHIR R4 server, to which a transaction bundle is posted."""
    hl7_host: str | None = None
    hl7_port: Port | None = None
    """HL7 v2.5.1 over MLLP."""
    patient_system: str = "urn:edge-medgemma:patient-id"
    """FHIR system of the patient numbers that the scanners write. With the default, patients stay apart
    from those that are there: a number alone may be another person's."""
    folder: str | None = None
    """Folder into which `bundle.json` and `oru.hl7` are put."""


class TakenFiles(StrEnum):
    """What becomes of a file of a watched folder once it is in the spool."""

    LEAVE = "leave"
    MOVE = "move"
    """Into the folder `taken` in the watched one; what is no scan goes into `not_taken`."""


@dataclass(frozen=True, slots=True)
class WatchedFolder:
    """A folder into which other programs drop files."""

    path: str
    taken: TakenFiles = TakenFiles.LEAVE
    rest_s: Seconds = 10
    """A file is taken when its size has not changed for so long."""


@dataclass(frozen=True, slots=True)
class Retention:
    """When what has been delivered and acknowledged is deleted."""

    days: Days = 30
    """After the last arrival; never before delivery, nor an unacknowledged critical study."""


@dataclass(frozen=True, slots=True)
class WorkerEngine:
    """What the worker runs."""

    directory: str | None = None
    """Engine directory; without one, the demo engine, which `site.demonstration` must allow."""
    slices: Annotated[int, msgspec.Meta(ge=1)] | None = None
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    providers: tuple[str, ...] = ()
    """As `--provider` of `triage`."""


@dataclass(frozen=True, slots=True)
class ClinicSettings:
    """All settings; without a file, this machine only, and nothing is sent anywhere."""

    site: Site = field(default_factory=Site)
    node: Node = field(default_factory=Node)
    page: Page = field(default_factory=Page)
    engine: WorkerEngine = field(default_factory=WorkerEngine)
    retention: Retention = field(default_factory=Retention)
    peers: tuple[Peer, ...] = ()
    health_records: tuple[HealthRecord, ...] = ()
    watched_folders: tuple[WatchedFolder, ...] = ()


def read_settings(path: Path | None) -> ClinicSettings:
    """The settings of a TOML file; all defaults without one.

    Raises:
        SettingsError: the file is missing, is no TOML, or has a field that is unknown or out of range.
    """
    if path is None:
        return ClinicSettings()
    try:
        settings = parse_document(tomllib.loads(path.read_text(encoding="utf-8")), ClinicSettings)
    except OSError as error:
        raise SettingsError(f"could not read '{path}': {error.strerror or error}") from error
    except ValueError as error:
        raise SettingsError(f"'{path}': {error}; see docs/guides/clinic.md") from error
    names = [peer.name for peer in settings.peers]
    names += [record.name for record in settings.health_records]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(
            f"'{path}': two entries are called '{twice[0]}'; give each its own name"
        )
    return settings
