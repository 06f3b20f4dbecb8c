"""The result as a structured report: TID 1500 with one measurement group for each flagged finding.

What was not flagged stands in one sentence, never as a coded absence; log-odds stay out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from edge_medgemma.runtime.clinic.delivery.codes import (
    CATEGORY_OF_URGENCY,
    IMPRESSION,
    MODALITIES,
    PRESENCE_OF_PROPERTY,
    PRESENT,
    PRIVATE_SCHEME,
    PRIVATE_SCHEME_NAME,
    SITES,
    Code,
)
from edge_medgemma.runtime.clinic.delivery.content import Told, ToldFinding
from edge_medgemma.runtime.clinic.delivery.equipment import (
    MODEL,
    contributing_equipment,
    created,
    device_observer,
    serial_number,
    software_versions,
)
from edge_medgemma.runtime.clinic.delivery.source import SourceStudy
from edge_medgemma.runtime.clinic.delivery.uids import derived_uid
from edge_medgemma.runtime.clinic.maker import MANUFACTURER
from edge_medgemma.runtime.slicing.silence import silenced

SERIES_NUMBER = 9002

_QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
_COMMENT = Code("121106", "DCM", "Comment")


@dataclass(frozen=True, slots=True)
class EarlierObject:
    """An object of ours that a newer one replaces."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str


def measurement_report(
    told: Told,
    source: SourceStudy,
    frames: Mapping[tuple[str, int], int],
    *,
    sop_instance_uid: str,
    series_uid: str,
    earlier: EarlierObject | None,
) -> Dataset:
    """A Comprehensive 3D SR, complete, preliminary and unverified.

    Args:
        told: the result
        source: the study, with the key slices' images
        frames: SOP Instance UID and slice index to 1-based frame number, of multi-frame images
        sop_instance_uid: of the report
        series_uid: of its series
        earlier: report of an earlier result, which this one replaces
    """
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import Comprehensive3DSR

    at = created(told.report)
    with silenced("highdicom"), silenced("highdicom.base"):  # both quote names of patients
        return Comprehensive3DSR(
            evidence=list(source.images.values()) or [source.identity],
            content=_content(told, source, frames)[0],
            series_instance_uid=series_uid,
            series_number=SERIES_NUMBER,
            sop_instance_uid=sop_instance_uid,
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_final=False,
            is_verified=False,
            previous_versions=[_reference(earlier)] if earlier else None,
            contributing_equipment=contributing_equipment(told.report),
            coding_schemes=[
                CodingSchemeIdentificationItem(designator=PRIVATE_SCHEME, name=PRIVATE_SCHEME_NAME)
            ],
            manufacturer_model_name=MODEL,
            series_description=told.series_description,
            device_serial_number=serial_number(told.report),
            software_versions=software_versions(told.report),
            content_date=at.date(),
            content_time=at.time(),
        )


def _reference(earlier: EarlierObject) -> Dataset:
    reference = Dataset()
    reference.SOPClassUID = earlier.sop_class_uid
    reference.SOPInstanceUID = earlier.sop_instance_uid
    reference.StudyInstanceUID = earlier.study_uid
    reference.SeriesInstanceUID = earlier.series_uid
    return reference


def _content(told: Told, source: SourceStudy, frames: Mapping[tuple[str, int], int]) -> Any:
    """The root container. highdicom's own class of TID 1500 refuses a report without measurements."""
    from highdicom.sr import (
        ContainerContentItem,
        ContentSequence,
        LanguageOfContentItemAndDescendants,
        ObservationContext,
        RelationshipTypeValues,
        TextContentItem,
    )
    from highdicom.sr.coding import CodedConcept

    contains = RelationshipTypeValues.CONTAINS
    root = ContainerContentItem(name=_coded(_TITLE), template_id="1500")
    root.ContentSequence = ContentSequence()
    english = CodedConcept("en", "RFC5646", "English")
    root.ContentSequence.extend(LanguageOfContentItemAndDescendants(english))
    root.ContentSequence.extend(
        ObservationContext(observer_device_context=device_observer(told.report))
    )
    root.ContentSequence.extend(_procedures(told, source))
    if told.findings:
        groups = ContainerContentItem(name=_coded(_MEASUREMENTS), relationship_type=contains)
        groups.ContentSequence = ContentSequence()
        for index, finding in enumerate(told.findings):
            groups.ContentSequence.extend(_group(told, finding, index, source, frames))
        root.ContentSequence.append(groups)
    words = ContainerContentItem(name=_coded(_QUALITATIVE_EVALUATIONS), relationship_type=contains)
    words.ContentSequence = ContentSequence()
    texts = [(IMPRESSION, told.impression)]
    texts += [(_COMMENT, f"Limitation: {one}") for one in told.limitations]
    for name, text in texts:
        words.ContentSequence.append(TextContentItem(_coded(name), text, contains))
    root.ContentSequence.append(words)
    return ContentSequence([root], is_root=True)


def _procedures(told: Told, source: SourceStudy) -> list[Any]:
    """TID 1500 row 4: the imaging procedure as the images name it, else by its modality."""
    from highdicom.sr import CodeContentItem, RelationshipTypeValues

    named = source.identity.get("ProcedureCodeSequence") or []
    codes = [
        Code(str(item.CodeValue), str(item.CodingSchemeDesignator), str(item.CodeMeaning))
        for item in named
        if item.get("CodeValue") and item.get("CodingSchemeDesignator") and item.get("CodeMeaning")
    ]
    fallback = Code("OT", "DCM", "Other")
    codes = codes or [MODALITIES[told.modality] if told.modality else fallback]
    name = _coded(Code("121058", "DCM", "Procedure reported"))
    modifier = RelationshipTypeValues.HAS_CONCEPT_MOD
    return [CodeContentItem(name, _coded(code), modifier) for code in codes]


def _group(
    told: Told,
    finding: ToldFinding,
    index: int,
    source: SourceStudy,
    frames: Mapping[tuple[str, int], int],
) -> Any:
    """One measurement group, TID 1501."""
    from highdicom.sr import (
        AlgorithmIdentification,
        FindingSite,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        TrackingIdentifier,
    )

    report = told.report
    engine = report.engine
    site = SITES.get(finding.body_part)
    identifier = f"{finding.protocol_name}/{finding.code}"
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            derived_uid(told.study_uid, engine.sha256, "finding", identifier, str(index)),
            identifier,
        ),
        finding_type=_coded(finding.public_code),
        finding_category=_coded(CATEGORY_OF_URGENCY[finding.urgency]),
        finding_sites=[FindingSite(_coded(site))] if site else None,
        algorithm_id=AlgorithmIdentification(
            name=f"{MODEL} triage, engine {engine.name}",
            version=" ".join(filter(None, (report.program_version, engine.revision))),
            parameters=[
                f"engine sha256 {engine.sha256}",
                f"protocol {finding.protocol_name} sha256 {finding.protocol_sha256}",
                f"threshold {finding.threshold:g}",
            ],
            manufacturer=MANUFACTURER,
        ),
        qualitative_evaluations=[
            QualitativeEvaluation(_coded(PRESENCE_OF_PROPERTY), _coded(PRESENT))
        ],
        source_images=_source_images(finding.key_slices, source, frames) or None,
    )


def _source_images(
    key_slices: Sequence[tuple[str, int]],
    source: SourceStudy,
    frames: Mapping[tuple[str, int], int],
) -> list[Any]:
    """References to key slices; the frames of one multi-frame image in one reference."""
    from highdicom.sr import SourceImageForMeasurementGroup

    numbers: dict[str, list[int]] = {}
    for uid, index in key_slices:
        if uid in source.images:
            frame = frames.get((uid, index))
            numbers.setdefault(uid, []).extend([] if frame is None else [frame])
    return [
        SourceImageForMeasurementGroup(
            source.images[uid].SOPClassUID, uid, sorted(set(found)) or None
        )
        for uid, found in numbers.items()
    ]


def _coded(code: Code) -> Any:
    from highdicom.sr.coding import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning[:64])
