"""The report as an encapsulated PDF."""

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from edge_medgemma.runtime.clinic.delivery.codes import REPORT
from edge_medgemma.runtime.clinic.delivery.content import DEMONSTRATION, Told
from edge_medgemma.runtime.clinic.delivery.equipment import (
    MODEL,
    created,
    device_uid,
    serial_number,
    software_versions,
)
from edge_medgemma.runtime.clinic.delivery.source import SourceStudy
from edge_medgemma.runtime.clinic.maker import MANUFACTURER

SERIES_NUMBER = 9004
TITLE = "AI triage report, not a diagnosis"

_FROM_SOURCE = (
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate",
    "PatientSex", "PatientAge", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID",
    "StudyDescription", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def encapsulated_pdf(
    told: Told, source: SourceStudy, pdf: bytes, *, sop_instance_uid: str, series_uid: str
) -> Dataset:
    """An Encapsulated PDF object. PS3.3 A.45.1

    Args:
        told: the result
        source: the study
        pdf: the document
        sop_instance_uid: of the object
        series_uid: of its series
    """
    at = created(told.report)
    document = Dataset()
    for keyword in _FROM_SOURCE:
        if keyword in source.identity:
            document[keyword] = source.identity[keyword]
    document.SOPClassUID = EncapsulatedPDFStorage
    document.SOPInstanceUID = sop_instance_uid
    document.SeriesInstanceUID = series_uid
    document.SeriesNumber = SERIES_NUMBER
    document.SeriesDescription = told.series_description
    document.InstanceNumber = 1
    document.Modality = "DOC"
    document.ConversionType = "WSD"
    document.Manufacturer = MANUFACTURER
    document.ManufacturerModelName = MODEL
    document.SoftwareVersions = software_versions(told.report)
    document.DeviceSerialNumber = serial_number(told.report)
    document.DeviceUID = device_uid(told.report)
    document.InstanceCreationDate = document.ContentDate = at.strftime("%Y%m%d")
    document.InstanceCreationTime = document.ContentTime = at.strftime("%H%M%S")
    document.AcquisitionDateTime = ""
    document.BurnedInAnnotation = "YES"
    document.DocumentTitle = f"{DEMONSTRATION}: {TITLE}" if told.is_demonstration else TITLE
    name = Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = (
        REPORT.value,
        REPORT.scheme,
        REPORT.meaning,
    )
    document.ConceptNameCodeSequence = [name]
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocumentLength = len(pdf)
    document.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    document.file_meta.MediaStorageSOPInstanceUID = sop_instance_uid
    return document
