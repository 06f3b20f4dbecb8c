"""The result as an HL7 v2.5.1 message, ORU^R01: preliminary, and never an absence."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from pydicom.valuerep import PersonName

from edge_medgemma.runtime.clinic.delivery.codes import (
    IMPRESSION,
    PRESENT,
    REPORT,
    STUDY,
    Code,
)
from edge_medgemma.runtime.clinic.delivery.content import Told
from edge_medgemma.runtime.clinic.delivery.equipment import MODEL, serial_number
from edge_medgemma.runtime.clinic.delivery.source import SourceStudy, text_of
from edge_medgemma.runtime.errors import DeliveryError
from edge_medgemma.runtime.triage.urgency import Urgency

_CONTROL_ID_LENGTH = 20
"""Most of MSH-10."""

_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}


def observation_message(
    told: Told, source: SourceStudy, *, report_uid: str, site_name: str
) -> bytes:
    """An ORU^R01 in UTF-8, segments ended by carriage returns.

    Args:
        told: the result
        source: the study
        report_uid: of the result; a second try has the same control ID
        site_name: of the clinic; empty where it is not set

    Raises:
        DeliveryError: the message breaks the grammar.
    """
    from hl7apy.core import Message
    from hl7apy.exceptions import HL7apyException

    try:
        message = Message("ORU_R01", version="2.5.1")
        _fill_header(message.msh, told, report_uid, site_name)
        result = message.add_group("ORU_R01_PATIENT_RESULT")
        _fill_patient(result.add_group("ORU_R01_PATIENT").add_segment("PID"), source)
        order = result.add_group("ORU_R01_ORDER_OBSERVATION")
        _fill_request(order.add_segment("OBR"), told, source, report_uid)
        for number, fields in enumerate(_observations(told), start=1):
            segment = order.add_group("ORU_R01_OBSERVATION").add_segment("OBX")
            segment.obx_1 = str(number)
            for name, value in fields.items():
                setattr(segment, name, value)
            segment.obx_11 = "P"
            segment.obx_14 = _time(told)
            segment.obx_18 = f"{serial_number(told.report)}^{MODEL}"
        message.validate()
        text: str = message.to_er7()
        return (text.rstrip("\r") + "\r").encode()
    except HL7apyException as error:
        raise DeliveryError(f"the HL7 message is not valid: {type(error).__name__}") from None


def _fill_header(segment: Any, told: Told, report_uid: str, site_name: str) -> None:
    segment.msh_3 = MODEL
    segment.msh_4 = _text(site_name or "CLINIC")
    segment.msh_7 = _time(told)
    segment.msh_9 = "ORU^R01^ORU_R01"
    segment.msh_10 = control_id(report_uid)
    segment.msh_11 = "T" if told.is_demonstration else "P"
    segment.msh_12 = "2.5.1"
    segment.msh_18 = "UNICODE UTF-8"


def control_id(report_uid: str) -> str:
    """MSH-10 of the message of a result."""
    return hashlib.sha256(report_uid.encode()).hexdigest()[:_CONTROL_ID_LENGTH].upper()


def _fill_patient(segment: Any, source: SourceStudy) -> None:
    identity = source.identity
    segment.pid_1 = "1"
    segment.pid_3 = _text(text_of(identity, "PatientID"))
    names = [_name(group) for group in text_of(identity, "PatientName").split("=") if group]
    segment.pid_5 = names[0] if names else "^^^^^^U"  # U: the name is not known
    if identity.PatientBirthDate:
        segment.pid_7 = str(identity.PatientBirthDate)
    segment.pid_8 = str(identity.PatientSex or "") or "U"


def _name(group: str) -> str:
    """XPN has suffix before prefix, DICOM the other way round."""
    name = PersonName(group)
    parts = (
        name.family_name,
        name.given_name,
        name.middle_name,
        name.name_suffix,
        name.name_prefix,
    )
    return "^".join(map(_text, parts)).rstrip("^")


def _fill_request(segment: Any, told: Told, source: SourceStudy, report_uid: str) -> None:
    identity = source.identity
    segment.obr_1 = "1"
    accession = _text(text_of(identity, "AccessionNumber"))
    if accession:
        segment.obr_2 = accession
    segment.obr_3 = accession or control_id(report_uid)
    segment.obr_4 = _coded(REPORT)
    if identity.StudyDate:
        segment.obr_7 = str(identity.StudyDate) + str(identity.StudyTime or "")[:6]
    segment.obr_22 = _time(told)
    segment.obr_24 = "RAD"
    segment.obr_25 = "P"


def _observations(told: Told) -> list[dict[str, str]]:
    """Fields of the OBX segments: findings, the impression, the study's UID."""
    found = []
    for index, finding in enumerate(told.findings, start=1):
        found.append(
            {
                "obx_2": "CWE",
                "obx_3": _coded(finding.public_code),
                "obx_4": str(index),
                "obx_5": _coded(PRESENT),
                "obx_8": "A" if finding.urgency is Urgency.ROUTINE else "AA",
            }
        )
    found.append({"obx_2": "TX", "obx_3": _coded(IMPRESSION), "obx_5": _text(told.impression)})
    study = {"obx_2": "HD", "obx_3": _coded(STUDY), "obx_5": f"^{told.study_uid}^ISO"}
    return [*found, study]


def _coded(code: Code) -> str:
    scheme = "L" if code.scheme.startswith("99") else code.scheme
    return f"{_text(code.value)}^{_text(code.meaning)}^{scheme}"


def _text(text: str) -> str:
    """Free text without its delimiters, on one line."""
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in text)
    return " ".join(escaped.split())


def _time(told: Told) -> str:
    at = datetime.fromisoformat(told.report.created_at).astimezone(UTC)
    return at.strftime("%Y%m%d%H%M%S+0000")
