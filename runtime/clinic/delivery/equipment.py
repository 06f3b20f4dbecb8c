"""How every object of ours says by which program and engine it was made."""

from datetime import datetime
from typing import Any

from edge_medgemma.runtime.clinic.delivery.uids import derived_uid
from edge_medgemma.runtime.clinic.maker import MANUFACTURER
from edge_medgemma.runtime.triage.report import TriageReport

MODEL = "edge-medgemma"


def device_uid(report: TriageReport) -> str:
    """Of the engine and program; another engine is another device."""
    return derived_uid("device", report.engine.sha256, report.program_version)


def software_versions(report: TriageReport) -> str:
    """Program and engine; at most 64 characters (VR LO)."""
    return f"{report.program_version} engine {report.engine.sha256[:16]}"


def serial_number(report: TriageReport) -> str:
    """Of the engine: the beginning of its hash."""
    return report.engine.sha256[:16]


def created(report: TriageReport) -> datetime:
    """When the result was made, in the device's time zone, as DICOM dates without a zone are read."""
    return datetime.fromisoformat(report.created_at).astimezone().replace(microsecond=0)


def device_observer(report: TriageReport) -> Any:
    """The program as observer, TID 1004."""
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext
    from highdicom.sr.coding import CodedConcept

    return ObserverContext(
        CodedConcept("121007", "DCM", "Device"),
        DeviceObserverIdentifyingAttributes(
            uid=device_uid(report),
            name=MODEL,
            manufacturer_name=MANUFACTURER,
            model_name=report.engine.name[:64],
            serial_number=serial_number(report),
        ),
    )


def contributing_equipment(report: TriageReport) -> list[Any]:
    """The engine that processed the images. PS3.3 C.12.1.1.5, CID 7005"""
    from highdicom import ContributingEquipment
    from highdicom.sr.coding import CodedConcept

    item = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=CodedConcept("109102", "DCM", "Processing Equipment"),
        manufacturer_model_name=report.engine.name[:64],
        software_versions=software_versions(report),
        device_serial_number=serial_number(report),
        contribution_datetime=created(report),
    )
    item.DeviceUID = device_uid(report)  # highdicom has no argument for it
    return [item]
