"""Key object selection: the key slices and our own results on one list, for viewers that show it."""

from collections.abc import Sequence

from pydicom.dataset import Dataset

from edge_medgemma.runtime.clinic.delivery.content import Told
from edge_medgemma.runtime.clinic.delivery.equipment import (
    MODEL,
    contributing_equipment,
    created,
    device_observer,
    serial_number,
    software_versions,
)
from edge_medgemma.runtime.clinic.delivery.source import SourceStudy
from edge_medgemma.runtime.clinic.maker import MANUFACTURER
from edge_medgemma.runtime.slicing.silence import silenced

SERIES_NUMBER = 9003


def key_object_selection(
    told: Told,
    source: SourceStudy,
    results: Sequence[Dataset],
    *,
    sop_instance_uid: str,
    series_uid: str,
) -> Dataset:
    """A Key Object Selection Document, title Of Interest (CID 7010).

    Args:
        told: the result
        source: the study, with the key slices' images
        results: our own objects to stand on the list, the structured report and the pictures
        sop_instance_uid: of the document
        series_uid: of its series
    """
    from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
    from highdicom.sr.coding import CodedConcept

    at = created(told.report)
    objects = [*source.images.values(), *results]
    with silenced("highdicom"), silenced("highdicom.base"):  # both quote names of patients
        return KeyObjectSelectionDocument(
            evidence=objects,
            content=KeyObjectSelection(
                document_title=CodedConcept("113000", "DCM", "Of Interest"),
                referenced_objects=objects,
                observer_device_context=device_observer(told.report),
                description=told.impression,
            ),
            series_instance_uid=series_uid,
            series_number=SERIES_NUMBER,
            sop_instance_uid=sop_instance_uid,
            instance_number=1,
            manufacturer=MANUFACTURER,
            contributing_equipment=contributing_equipment(told.report),
            manufacturer_model_name=MODEL,
            series_description=told.series_description,
            device_serial_number=serial_number(told.report),
            software_versions=software_versions(told.report),
            content_date=at.date(),
            content_time=at.time(),
        )
