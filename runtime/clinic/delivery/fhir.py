"""The result as a FHIR R4 transaction: posted twice, it makes nothing twice.

Every resource is created only where its identifier is not there (`ifNoneExist`): nothing of another
system is written over, and a second try after a lost answer changes nothing.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from pydicom.valuerep import PersonName

from edge_medgemma.runtime.clinic.delivery.codes import (
    CATEGORY_OF_URGENCY,
    PRESENT,
    REPORT,
    SITES,
    Code,
)
from edge_medgemma.runtime.clinic.delivery.content import DEMONSTRATION, Told, ToldFinding
from edge_medgemma.runtime.clinic.delivery.equipment import MODEL, device_uid, serial_number
from edge_medgemma.runtime.clinic.delivery.fhir_checks import check_bundle
from edge_medgemma.runtime.clinic.delivery.source import SourceStudy, text_of
from edge_medgemma.runtime.clinic.delivery.uids import derived_uid, derived_uuid
from edge_medgemma.runtime.clinic.maker import MANUFACTURER
from edge_medgemma.runtime.reporting.json_report import INTENDED_USE
from edge_medgemma.runtime.triage.urgency import Urgency

Resource = dict[str, Any]
"""A FHIR resource as JSON has it."""

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "RADLEX": "http://radlex.org",
    "99EDGEMG": "urn:edge-medgemma:finding",
}
_UID_SYSTEM = "urn:dicom:uid"
_URI_SYSTEM = "urn:ietf:rfc3986"
_REPLACES = "http://hl7.org/fhir/StructureDefinition/diagnosticReport-replaces"

_GENDERS = {"M": "male", "F": "female", "O": "other"}


@dataclass(frozen=True, slots=True)
class Presented:
    """The report as people read it."""

    html: bytes
    pdf: bytes


def transaction_bundle(
    told: Told,
    source: SourceStudy,
    presented: Presented,
    *,
    site_name: str,
    patient_system: str,
    report_uid: str,
    earlier_report_uid: str | None,
) -> Resource:
    """A Bundle of type transaction, checked.

    Args:
        told: the result
        source: the study
        presented: the report, attached to the DiagnosticReport
        site_name: of the clinic; empty where it is not set
        patient_system: of the patient's number
        report_uid: names the DiagnosticReport
        earlier_report_uid: of the report that this one replaces

    Raises:
        DeliveryError: the bundle breaks a rule of FHIR or of ours.
    """
    from fhir.resources.R4B.bundle import Bundle
    from pydantic import ValidationError

    from edge_medgemma.runtime.errors import DeliveryError

    patient = _patient(told, source, patient_system)
    subject = {"reference": _url(patient)}
    organization = _organization(site_name)
    device = _device(told)
    study = _imaging_study(told, source, subject)
    observations = [
        _observation(told, source, finding, report_uid, subject, device, study)
        for finding in told.findings
    ]
    report = _identified("DiagnosticReport", _URI_SYSTEM, f"urn:oid:{report_uid}") | {
        "status": "preliminary",
        "category": [_concept(Code("RAD", f"{_TERMINOLOGY}/v2-0074", "Radiology"))],
        "code": _concept(REPORT, "AI triage report, not a diagnosis"),
        "subject": subject,
        **_effective(source),
        "issued": told.report.created_at,
        "performer": [{"reference": _url(organization)}],
        "imagingStudy": [{"reference": _url(study)}],
        "result": [{"reference": _url(one)} for one in observations],
        "conclusion": told.impression,
        "presentedForm": [
            _attachment("text/html", presented.html),
            _attachment("application/pdf", presented.pdf),
        ],
    }
    if not observations:
        del report["result"]
    if earlier_report_uid is not None:
        earlier = {"system": _URI_SYSTEM, "value": f"urn:oid:{earlier_report_uid}"}
        reference = {"type": "DiagnosticReport", "identifier": earlier}
        report["extension"] = [{"url": _REPLACES, "valueReference": reference}]
    resources = [patient, organization, device, study, *observations, report]
    if told.urgency is Urgency.CRITICAL:
        resources.append(_communication(told, report_uid, subject, device, report))
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "timestamp": told.report.created_at,
        "entry": [_entry(one) for one in resources],
    }
    check_bundle(bundle)
    try:
        Bundle.model_validate(bundle)
    except ValidationError as error:
        places = "; ".join(".".join(map(str, one["loc"])) for one in error.errors()[:3])
        raise DeliveryError(f"the FHIR bundle is not valid at {places}") from None
    return bundle


def _identified(kind: str, system: str, value: str) -> Resource:
    return {"resourceType": kind, "identifier": [{"system": system, "value": value}]}


def _url(resource: Resource) -> str:
    identifier = resource["identifier"][0]
    name = derived_uuid(resource["resourceType"], identifier["system"], identifier["value"])
    return f"urn:uuid:{name}"


def _entry(resource: Resource) -> Resource:
    identifier = resource["identifier"][0]
    return {
        "fullUrl": _url(resource),
        "resource": resource,
        "request": {
            "method": "POST",
            "url": resource["resourceType"],
            "ifNoneExist": f"identifier={_query(identifier['system'])}|{_query(identifier['value'])}",
        },
    }


def _query(text: str) -> str:
    """For a search parameter: `\\`, `,`, `|` and `$` are its separators, the rest is percent-encoded."""
    from urllib.parse import quote

    for letter in "\\,|$":
        text = text.replace(letter, f"\\{letter}")
    return quote(text, safe=":/.")


def _concept(code: Code, text: str = "") -> Resource:
    system = _SYSTEMS.get(code.scheme, code.scheme)
    coding = {"system": system, "code": code.value, "display": code.meaning}
    return {"coding": [coding], "text": text or code.meaning}


def _patient(told: Told, source: SourceStudy, system: str) -> Resource:
    identity = source.identity
    number = text_of(identity, "PatientID")
    if number:
        patient = _identified("Patient", system, number)
    else:  # never joined with another person for want of a number
        name = derived_uid("patient of study", told.study_uid)
        patient = _identified("Patient", _URI_SYSTEM, f"urn:oid:{name}")
    names = _names(text_of(identity, "PatientName"))
    if names:
        patient["name"] = names
    patient["gender"] = _GENDERS.get(str(identity.PatientSex), "unknown")
    if identity.PatientBirthDate:
        patient["birthDate"] = _date(str(identity.PatientBirthDate))
    return patient


def _names(value: str) -> list[Resource]:
    """One HumanName for each way in which the name is written: Latin, ideographic, phonetic."""
    found = []
    for group in value.split("="):
        parts = PersonName(group)
        name: Resource = {}
        if parts.family_name:
            name["family"] = parts.family_name
        given = [one for one in (parts.given_name, parts.middle_name) if one]
        if given:
            name["given"] = given
        if name:
            text = " ".join([*given, parts.family_name]).strip()
            found.append({"text": text, **name})
    return found


def _organization(site_name: str) -> Resource:
    name = site_name or "Clinic"
    organization = _identified("Organization", "urn:edge-medgemma:site", name)
    organization["name"] = name
    return organization


def _device(told: Told) -> Resource:
    report = told.report
    hashes = [f"engine sha256 {report.engine.sha256}"]
    hashes += [
        f"protocol {study.protocol_name} sha256 {study.protocol_sha256}"
        for study in report.studies
        if study.protocol_name
    ]
    return _identified("Device", _URI_SYSTEM, f"urn:oid:{device_uid(report)}") | {
        "status": "active",
        "manufacturer": MANUFACTURER,
        "serialNumber": serial_number(report),
        "deviceName": [{"name": f"{MODEL}, {report.engine.name}", "type": "model-name"}],
        "type": {"text": "Program for AI triage of scans"},
        "version": [{"value": report.program_version}],
        "property": [
            {
                "type": _concept(Code("111002", "DCM", "Algorithm Parameters")),
                "valueCode": [{"text": text} for text in dict.fromkeys(hashes)],
            }
        ],
    }


def _imaging_study(told: Told, source: SourceStudy, subject: Resource) -> Resource:
    study = _identified("ImagingStudy", _UID_SYSTEM, f"urn:oid:{told.study_uid}") | {
        "status": "available",
        "subject": subject,
        "numberOfSeries": source.series_count,
        "numberOfInstances": source.instance_count,
    }
    if told.modality is not None:
        study["modality"] = [
            {"system": _SYSTEMS["DCM"], "code": str(told.modality)},
        ]
    if source.identity.StudyDate:
        study["started"] = _date(str(source.identity.StudyDate))
    return study


def _observation(
    told: Told,
    source: SourceStudy,
    finding: ToldFinding,
    report_uid: str,
    subject: Resource,
    device: Resource,
    study: Resource,
) -> Resource:
    name = derived_uid(report_uid, finding.protocol_name, finding.code)
    category = Code("imaging", f"{_TERMINOLOGY}/observation-category", "Imaging")
    is_urgent = finding.urgency is not Urgency.ROUTINE
    abnormal = Code(
        "AA" if is_urgent else "A",
        f"{_TERMINOLOGY}/v3-ObservationInterpretation",
        "Critical abnormal" if is_urgent else "Abnormal",
    )
    notes = [f"{INTENDED_USE} Flagged by a program; no person has verified it."]
    if finding.is_of_earlier_look:
        notes.append("An earlier look flagged it; the last look did not. The flag stands.")
    if told.is_demonstration:
        notes.append(f"{DEMONSTRATION}.")
    observation = _identified("Observation", _URI_SYSTEM, f"urn:oid:{name}") | {
        "status": "preliminary",
        "category": [_concept(category)],
        "code": _concept(finding.public_code, finding.title),
        "subject": subject,
        **_effective(source),
        "issued": told.report.created_at,
        "valueCodeableConcept": _concept(PRESENT),
        "interpretation": [_concept(abnormal), _concept(CATEGORY_OF_URGENCY[finding.urgency])],
        "note": [{"text": text} for text in notes],
        "device": {"reference": _url(device)},
        "derivedFrom": [{"reference": _url(study)}],
    }
    site = SITES.get(finding.body_part)
    if site is not None:
        observation["bodySite"] = _concept(site)
    return observation


def _communication(
    told: Told, report_uid: str, subject: Resource, device: Resource, report: Resource
) -> Resource:
    """A message that a person has yet to pass on: only people communicate a critical result."""
    name = derived_uid(report_uid, "communication")
    return _identified("Communication", _URI_SYSTEM, f"urn:oid:{name}") | {
        "status": "preparation",
        "priority": "stat",
        "subject": subject,
        "about": [{"reference": _url(report)}],
        "sender": {"reference": _url(device)},
        "payload": [{"contentString": told.impression}],
    }


def _attachment(content_type: str, data: bytes) -> Resource:
    return {
        "contentType": content_type,
        "language": "en",
        "data": base64.b64encode(data).decode("ascii"),
        "size": len(data),
        "hash": base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode(),
        "title": "AI triage report, not a diagnosis",
    }


def _effective(source: SourceStudy) -> Resource:
    """The day of the scan, where it is stated: its time has no zone in DICOM."""
    day = str(source.identity.StudyDate or "")
    return {"effectiveDateTime": _date(day)} if day else {}


def _date(dicom: str) -> str:
    """`20240203` as `2024-02-03`."""
    return f"{dicom[:4]}-{dicom[4:6]}-{dicom[6:8]}"
