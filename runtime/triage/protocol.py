"""Protocols: the findings to look for in one kind of study, read from TOML files."""

import hashlib
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec

from edge_medgemma.runtime.documents import Count, Finite, Text, parse_document
from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.slicing.sampling import MAX_SLICES
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Series
from edge_medgemma.runtime.triage.urgency import Urgency

PROTOCOL_FOLDER = Path(__file__).parent / "protocols"

MAX_PROTOCOL_BYTES = 64 * 1024
"""No sensible protocol is larger; ours are under 4 KiB."""


VOCABULARY = "; ".join(
    f"{name} is one of {', '.join(kind)}"
    for name, kind in (("modality", Modality), ("body part", BodyPart), ("urgency", Urgency))
)
"""The closed enumerations of a protocol, for the message that refuses another word."""


@dataclass(frozen=True, slots=True)
class StandardCode:
    """A finding's entry in a public terminology."""

    scheme: Text
    """DICOM coding scheme designator, `SCT` for SNOMED CT. PS3.16 section 8"""
    value: Text
    display: Text


@dataclass(frozen=True, slots=True)
class Finding:
    """One yes-or-no question to the model."""

    code: Annotated[str, msgspec.Meta(pattern="^[a-z_][a-z0-9_]*$")]
    """Snake-case name, unique in its protocol."""
    title: Text
    question: Text
    urgency: Urgency
    """Urgency of the study when the finding is flagged: critical, urgent or routine."""
    threshold: Finite
    """The finding is flagged when its score, in log-odds, is above this."""
    standard_code: StandardCode | None = None

    def __post_init__(self) -> None:
        """A flag cannot make a study not assessable."""
        if self.urgency is Urgency.NOT_ASSESSABLE:
            raise ValueError(
                f"urgency of '{self.code}' is {self.urgency}; expected critical, urgent or routine"
            )


@dataclass(frozen=True, slots=True)
class ProtocolFile:
    """Content of a protocol's TOML file."""

    name: Text
    title: Text
    modalities: Annotated[tuple[Modality, ...], msgspec.Meta(min_length=1)]
    body_parts: Annotated[tuple[BodyPart, ...], msgspec.Meta(min_length=1)]
    slices: Count
    """Most slices shown to the model unless the user says otherwise."""
    instruction: Text
    findings: Annotated[tuple[Finding, ...], msgspec.Meta(min_length=1)]
    is_automatic: bool = True
    """Whether it is chosen by modality and body part; else only by name, or by an engine's scope."""
    minimum_extent_mm: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0
    """Least extent along the stack; less of the body part is too little to call anything absent."""
    maximum_gap_mm: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    """Widest step between slices of the series; what lies in a wider one was not seen."""
    contrast_agent: bool | None = None
    """Whether the series should be one with a contrast agent; None takes either."""

    def __post_init__(self) -> None:
        """Findings are told apart by their codes."""
        codes = [finding.code for finding in self.findings]
        duplicates = sorted({code for code in codes if codes.count(code) > 1})
        if duplicates:
            raise ValueError(f"the finding '{duplicates[0]}' stands twice; expected distinct codes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol(ProtocolFile):
    """Findings looked for in one kind of study."""

    sha256: str
    """Hash of the file's bytes."""


def load_protocol(name_or_path: str) -> Protocol:
    """A built-in protocol by name, or the protocol in a TOML file.

    Raises:
        ProtocolError: no such protocol, or the file breaks a rule, which the message names.
    """
    builtin = PROTOCOL_FOLDER / f"{name_or_path}.toml"
    if name_or_path in builtin_names():
        return read_protocol(builtin)
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        return read_protocol(path)
    raise ProtocolError(
        f"no protocol '{name_or_path}'; expected auto, a .toml file or one of "
        + ", ".join(builtin_names())
    )


@cache
def builtin_names() -> tuple[str, ...]:
    """Names of the protocols in the package, sorted."""
    return tuple(sorted(path.stem for path in PROTOCOL_FOLDER.glob("*.toml")))


@cache
def builtin_protocols() -> tuple[Protocol, ...]:
    """All protocols of the package, by name."""
    return tuple(read_protocol(PROTOCOL_FOLDER / f"{name}.toml") for name in builtin_names())


_GENERAL_SUBJECTS = {
    Modality.CT: "a contiguous block of CT slices",
    Modality.MR: "a contiguous block of MR slices",
    Modality.CR: "a radiograph",
    Modality.DX: "a radiograph",
}
"""What is analysed where no protocol says it, in the words of the others' instructions."""


def general_protocol(modality: Modality) -> Protocol:
    """Instruction and number of slices for free questions about any part; it asks for no finding."""
    shown = "images" if modality in (Modality.CR, Modality.DX) else "slices"
    instruction = (
        f"You are an experienced radiologist. You are analyzing {_GENERAL_SUBJECTS[modality]}. "
        f"Please review the {shown} provided below carefully."
    )
    return Protocol(
        name="general",
        title="Free question",
        modalities=(modality,),
        body_parts=(BodyPart.UNKNOWN,),
        slices=4 if shown == "images" else MAX_SLICES,
        instruction=instruction,
        findings=(),
        sha256=hashlib.sha256(instruction.encode()).hexdigest(),
    )


def covers(protocol: Protocol, series: Series) -> bool:
    """Whether the protocol is meant for the modality and the body part of the series."""
    meant = set(protocol.body_parts)
    if BodyPart.UNKNOWN in meant:
        meant.add(BodyPart.OTHER)  # a protocol for no part that is known here
    is_shown = not meant.isdisjoint(series.body_parts)
    return series.modality in protocol.modalities and is_shown


def read_protocol(path: Path) -> Protocol:
    """Parse a protocol file strictly: an unknown key is an error, so that a typo cannot hide.

    Raises:
        ProtocolError: the file cannot be read or breaks a rule, which the message names.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROTOCOL_BYTES + 1)
        if len(data) > MAX_PROTOCOL_BYTES:
            raise ValueError(f"it is larger than {MAX_PROTOCOL_BYTES} bytes")
        parsed = parse_document(tomllib.loads(data.decode("utf-8")), ProtocolFile)
        content = {field.name: getattr(parsed, field.name) for field in fields(parsed)}
        return Protocol(**content, sha256=hashlib.sha256(data).hexdigest())
    except OSError as error:
        raise ProtocolError(f"cannot read protocol '{path}': {error.strerror or error}") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ProtocolError(
            f"protocol '{path}' breaks a rule ({error}); correct the file: {VOCABULARY}"
        ) from None
