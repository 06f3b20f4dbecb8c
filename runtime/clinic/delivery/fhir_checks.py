"""Rules of FHIR that `fhir.resources` does not know, and ours: bindings, references, obs-6, no absence."""

from collections.abc import Iterator
from typing import Any

from edge_medgemma.runtime.errors import DeliveryError

_REQUIRED_CODES = {
    ("Bundle", "type"): {"transaction"},
    ("Communication", "priority"): {"routine", "urgent", "asap", "stat"},
    ("Communication", "status"): {"preparation", "completed"},
    ("Device", "status"): {"active"},
    ("DiagnosticReport", "status"): {"preliminary"},
    ("ImagingStudy", "status"): {"available"},
    ("Observation", "status"): {"preliminary"},
    ("Patient", "gender"): {"male", "female", "other", "unknown"},
}
"""Of the required bindings, what a program that nobody has verified may say."""

_REFERENCES = {
    "about": {"DiagnosticReport"},
    "derivedFrom": {"ImagingStudy"},
    "device": {"Device"},
    "imagingStudy": {"ImagingStudy"},
    "performer": {"Organization"},
    "result": {"Observation"},
    "sender": {"Device"},
    "subject": {"Patient"},
}
"""Field to what it may point at."""

ABSENT = "272519000"
"""SNOMED CT Absent, which nothing of ours says."""


def check_bundle(bundle: dict[str, Any]) -> None:
    """Check a transaction of ours.

    Raises:
        DeliveryError: names the first rule that it breaks.
    """
    resources = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    _demand(len(resources) == len(bundle["entry"]), "two entries have one fullUrl")
    _check_codes(bundle)
    for entry in bundle["entry"]:
        request, resource = entry["request"], entry["resource"]
        kind = resource["resourceType"]
        _demand(request.get("method") == "POST", f"{kind} is not created by POST")
        _demand(request.get("url") == kind, f"{kind} is posted to {request.get('url')}")
        _demand(bool(request.get("ifNoneExist")), f"{kind} would be created twice")
        _check_codes(resource)
        _check_references(resource, resources)
        if kind == "Observation":
            _check_observation(resource)
        _demand(ABSENT not in set(_codes(resource)), f"{kind} says that something is absent")


def _check_codes(resource: dict[str, Any]) -> None:
    kind = resource["resourceType"]
    for (one, field), allowed in _REQUIRED_CODES.items():
        if one == kind and (field != "priority" or field in resource):
            _demand(resource.get(field) in allowed, f"{kind}.{field} is {resource.get(field)}")


def _check_references(resource: dict[str, Any], resources: dict[str, dict[str, Any]]) -> None:
    kind = resource["resourceType"]
    for field, allowed in _REFERENCES.items():
        value = resource.get(field)
        for one in value if isinstance(value, list) else [value] if value else []:
            target = resources.get(one["reference"])
            _demand(
                target is not None and target["resourceType"] in allowed,
                f"{kind}.{field} does not point at {' or '.join(sorted(allowed))}",
            )


def _check_observation(observation: dict[str, Any]) -> None:
    """obs-6: no reason for a missing value beside a value; and a value is there."""
    values = [name for name in observation if name.startswith("value")]
    has_reason = "dataAbsentReason" in observation
    _demand(not (values and has_reason), "obs-6: an Observation has a value and a reason for none")
    _demand(len(values) == 1, f"an Observation has {len(values)} values; expected one")


def _codes(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("code"), str):
            yield value["code"]
        for one in value.values():
            yield from _codes(one)
    elif isinstance(value, list):
        for one in value:
            yield from _codes(one)


def _demand(holds: bool, found: str) -> None:
    if not holds:
        raise DeliveryError(f"the FHIR bundle breaks a rule: {found}")
