"""What is asked of a scan: protocols, read from TOML files."""

import hashlib
import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge_medgemma.runtime.errors import ProtocolError
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Series
from edge_medgemma.runtime.triage.urgency import Urgency

PROTOCOL_FOLDER = Path(__file__).parent / "protocols"

MAX_PROTOCOL_BYTES = 64 * 1024
"""No sensible protocol is larger; ours are under 4 KiB."""

_PROTOCOL_KEYS = {
    "name", "title", "modalities", "body_parts", "slices", "minimum_extent_mm", "instruction",
    "findings",
}  # fmt: skip
_FINDING_KEYS = {"code", "title", "question", "urgency", "threshold", "standard_code"}
_STANDARD_CODE_KEYS = {"scheme", "value", "display"}


@dataclass(frozen=True, slots=True)
class StandardCode:
    """A finding's entry in a public terminology."""

    scheme: str
    """DICOM coding scheme designator, `SCT` for SNOMED CT. PS3.16 section 8"""
    value: str
    display: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One yes-or-no question to the model."""

    code: str
    """Snake-case name, unique in its protocol."""
    title: str
    question: str
    urgency: Urgency
    """Of the study when the finding is flagged: critical, urgent or routine."""
    threshold: float
    """The finding is flagged when its score, in log-odds, is above this."""
    standard_code: StandardCode | None


@dataclass(frozen=True, slots=True)
class Protocol:
    """Findings looked for in one kind of study."""

    name: str
    title: str
    modalities: tuple[Modality, ...]
    body_parts: tuple[BodyPart, ...]
    slices: int
    """Most slices shown to the model unless the user says otherwise."""
    minimum_extent_mm: float
    """Along the stack; less than this is too little of the body part to call anything absent."""
    instruction: str
    findings: tuple[Finding, ...]
    sha256: str
    """Of the file's bytes."""


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


def covers(protocol: Protocol, series: Series) -> bool:
    """Whether the protocol is meant for the modality and the body part of the series."""
    return series.modality in protocol.modalities and series.body_part in protocol.body_parts


def read_protocol(path: Path) -> Protocol:
    """Parse a protocol file strictly: an unknown key is an error, so that a typo cannot hide.

    Raises:
        ProtocolError: the file cannot be read or breaks a rule, which the message names.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROTOCOL_BYTES + 1)
        if len(data) > MAX_PROTOCOL_BYTES:
            raise ValueError(f"is larger than {MAX_PROTOCOL_BYTES} bytes")
        return _parse(tomllib.loads(data.decode("utf-8")), hashlib.sha256(data).hexdigest())
    except OSError as error:
        raise ProtocolError(f"cannot read protocol '{path}': {error.strerror or error}") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ProtocolError(f"protocol '{path}' {error}; correct the file") from None


def _parse(raw: Mapping[str, Any], sha256: str) -> Protocol:
    _check_keys(raw, _PROTOCOL_KEYS, {"minimum_extent_mm"}, "the protocol")
    slices = raw["slices"]
    if type(slices) is not int or slices < 1:
        raise ValueError(f"has slices = {slices!r}; expected a whole number of at least 1")
    if not isinstance(raw["findings"], list) or not raw["findings"]:
        raise ValueError("has no [[findings]]; expected at least one")
    findings = tuple(_parse_finding(finding) for finding in raw["findings"])
    codes = [finding.code for finding in findings]
    duplicates = {code for code in codes if codes.count(code) > 1}
    if duplicates:
        raise ValueError(f"has the finding '{min(duplicates)}' twice; expected distinct codes")
    extent_mm = _number(raw.get("minimum_extent_mm", 0.0), "minimum_extent_mm")
    if extent_mm < 0:
        raise ValueError(f"has minimum_extent_mm = {extent_mm}; expected 0 or more")
    return Protocol(
        name=_text(raw, "name"),
        title=_text(raw, "title"),
        modalities=tuple(Modality(word) for word in _words(raw, "modalities", tuple(Modality))),
        body_parts=tuple(BodyPart(word) for word in _words(raw, "body_parts", tuple(BodyPart))),
        slices=slices,
        minimum_extent_mm=extent_mm,
        instruction=_text(raw, "instruction"),
        findings=findings,
        sha256=sha256,
    )


def _parse_finding(raw: object) -> Finding:
    if not isinstance(raw, Mapping):
        raise ValueError("has a finding that is not a table; write [[findings]]")  # noqa: TRY004
    _check_keys(raw, _FINDING_KEYS, {"standard_code"}, "a finding")
    code = _text(raw, "code")
    if not code.isidentifier() or code != code.lower():
        raise ValueError(f"has the finding code '{code}'; expected lower-case snake_case")
    flagging = [u for u in Urgency if u is not Urgency.NOT_ASSESSABLE]
    if raw["urgency"] not in flagging:
        raise ValueError(
            f"has urgency {raw['urgency']!r} for '{code}'; expected " + ", ".join(flagging)
        )
    standard_code = None
    if "standard_code" in raw:
        entry = raw["standard_code"]
        if not isinstance(entry, Mapping):
            raise ValueError(f"has a standard_code of '{code}' that is not a table")
        _check_keys(entry, _STANDARD_CODE_KEYS, set(), "a standard_code")
        standard_code = StandardCode(
            _text(entry, "scheme"), _text(entry, "value"), _text(entry, "display")
        )
    return Finding(
        code=code,
        title=_text(raw, "title"),
        question=_text(raw, "question"),
        urgency=Urgency(raw["urgency"]),
        threshold=_number(raw["threshold"], "threshold"),
        standard_code=standard_code,
    )


def _check_keys(
    raw: Mapping[str, Any], known: Collection[str], optional: Collection[str], where: str
) -> None:
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise ValueError(
            f"has the unknown key '{unknown[0]}' in {where}; expected " + ", ".join(sorted(known))
        )
    missing = sorted(set(known) - set(optional) - set(raw))
    if missing:
        raise ValueError(f"lacks the key '{missing[0]}' in {where}")


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"has {key} = {value!r}; expected a text")
    return value


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"has {key} = {value!r}; expected a finite number")
    return float(value)


def _words(raw: Mapping[str, Any], key: str, known: Collection[str]) -> list[str]:
    value = raw[key]
    if not isinstance(value, list) or not value:
        raise ValueError(f"has {key} = {value!r}; expected a list of at least one")
    for word in value:
        if word not in known:
            raise ValueError(f"has {word!r} in {key}; expected " + ", ".join(known))
    return value
