"""Studies in a spool and results about them, small, in every kind of image that a protocol knows."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

from edge_medgemma.runtime.clinic.settings import ClinicSettings, Peer, ResultKind, Site
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import Doubt
from edge_medgemma.runtime.clinic.worklist.results import ResultRecord, write_result
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.reporting.report_folder import write_report_folder
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.report import (
    Effort,
    EngineRecord,
    FindingResult,
    FindingStatus,
    KeyImage,
    KeySlice,
    Pass,
    SeriesRecord,
    SliceSeen,
    StudyReport,
    TriageReport,
)
from edge_medgemma.runtime.triage.urgency import Urgency, study_urgency

PLANTED = {
    "PatientName": "PLANTED^NAME",
    "PatientID": "PLANTED-ID",
    "PatientBirthDate": "19010203",
    "AccessionNumber": "PLANTED-ACC",
    "StudyDescription": "PLANTED DESCRIPTION",
    "ReferringPhysicianName": "PLANTED^PHYSICIAN",
    "StudyID": "PLANTED-STUDY",
}
"""What must stand in objects for archives, and nowhere else."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of study."""

    sop_class_uid: str
    modality: Modality
    protocol: str
    body_part: BodyPart
    frames: int = 0
    """Of one multi-frame object; 0 for one object a slice."""


KINDS = {
    "ct": Kind(CTImageStorage, Modality.CT, "head_ct", BodyPart.HEAD),
    "mr": Kind(MRImageStorage, Modality.MR, "brain_mr", BodyPart.HEAD),
    "cr": Kind(ComputedRadiographyImageStorage, Modality.CR, "chest_xray", BodyPart.CHEST),
    "dx": Kind(DigitalXRayImageStorageForPresentation, Modality.DX, "chest_xray", BodyPart.CHEST),
    "enhanced_ct": Kind(EnhancedCTImageStorage, Modality.CT, "head_ct", BodyPart.HEAD, 6),
    "enhanced_mr": Kind(EnhancedMRImageStorage, Modality.MR, "brain_mr", BodyPart.HEAD, 6),
}
SLICES = 6


def sample_state(folder: Path) -> StateFolder:
    """A new state folder."""
    state = StateFolder(folder)
    state.create()
    return state


def sample_settings(*peers: Peer, **site: Any) -> ClinicSettings:
    """Settings with the peers, or with one that is away and gets everything."""
    everything = tuple(ResultKind)
    away = Peer("archive", "ARCHIVE", "127.0.0.1", 1, results=everything)
    return ClinicSettings(site=Site(**site), peers=peers or (away,))


def write_study(state: StateFolder, kind: str, study: str = "1", **changes: Any) -> str:
    """Put a study into the spool; `changes` are DICOM keywords, None deletes one.

    Returns:
        Its key.
    """
    key = state.study_key(study_uid(study))
    folder = state.spool / key
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(1 if KINDS[kind].frames else SLICES):
        _slice(KINDS[kind], study, index, changes).save_as(
            folder / f"{index:03d}.dcm", enforce_file_format=True
        )
    return key


def study_uid(study: str) -> str:
    return f"1.2.3.4.{study}"


def sop_uid(kind: str, study: str, index: int) -> str:
    return f"1.2.3.4.{study}.1.{1 if KINDS[kind].frames else index + 1}"


def _slice(kind: Kind, study: str, index: int, changes: dict[str, Any]) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = kind.sop_class_uid
    attributes: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 100",
        **PLANTED,
        "PatientSex": "F",
        "StudyDate": "20240203",
        "StudyTime": "101112",
        "SOPClassUID": kind.sop_class_uid,
        "SOPInstanceUID": f"1.2.3.4.{study}.1.{index + 1}",
        "StudyInstanceUID": study_uid(study),
        "SeriesInstanceUID": f"1.2.3.4.{study}.1",
        "SeriesNumber": 1,
        "InstanceNumber": index + 1,
        "Modality": str(kind.modality),
        "Manufacturer": "SCANNER",
        "BodyPartExamined": str(kind.body_part).upper(),
        "Rows": 8,
        "Columns": 8,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": bytes(64 * max(1, kind.frames)),
        **changes,
    }
    if kind.frames:
        attributes["NumberOfFrames"] = kind.frames
    for keyword, value in attributes.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def sample_report(
    kind: str,
    study: str = "1",
    *,
    flagged: tuple[str, ...] = ("intracranial_haemorrhage",),
    is_demonstration: bool = False,
    has_random_weights: bool = False,
    protocol_name: str | None = None,
    limitations: tuple[str, ...] = (),
    created_at: str = "2026-11-28T20:30:00+00:00",
) -> TriageReport:
    """A result about `write_study(state, kind, study)`."""
    one, protocol = KINDS[kind], load_protocol(protocol_name or KINDS[kind].protocol)
    keys = tuple(KeySlice(index, 5.0 * index, sop_uid(kind, study, index), 1.5) for index in (1, 3))
    findings = tuple(
        FindingResult(
            code=finding.code,
            title=finding.title,
            question=finding.question,
            urgency=finding.urgency,
            status=FindingStatus.FLAGGED if finding.code in flagged else FindingStatus.NOT_FLAGGED,
            reason="",
            log_odds=7.1234 if finding.code in flagged else -3.4567,
            baseline_log_odds=-5.4321,
            score=7.0,
            probability=None,
            threshold=finding.threshold,
            standard_code=finding.standard_code,
            key_slices=keys if finding.code in flagged else (),
        )
        for finding in protocol.findings
    )
    urgency, _ = study_urgency(
        [finding.urgency for finding in findings if finding.status is FindingStatus.FLAGGED], []
    )
    grey = np.add.outer(np.arange(96), np.arange(128)).astype(np.uint8)
    titles = tuple(f.title for f in findings if f.status is FindingStatus.FLAGGED)
    if limitations and urgency is Urgency.ROUTINE:
        urgency = Urgency.NOT_ASSESSABLE
    report = StudyReport(
        name="Study 1",
        study_uid=study_uid(study),
        urgency=urgency,
        limitations=limitations,
        protocol_name=protocol.name,
        protocol_title=protocol.title,
        protocol_sha256=protocol.sha256,
        series=SeriesRecord(
            f"1.2.3.4.{study}.1", one.modality, one.body_part, (SLICES, 8, 8), (5.0, 0.5, 0.5), "axial",
        ),
        series_reason="the only one",
        other_series=(),
        preset="head",
        slices=tuple(
            SliceSeen(index, 5.0 * index, sop_uid(kind, study, index)) for index in range(SLICES)
        ),
        passes=(Pass(SLICES, 5.0, 1.0, urgency, flagged),),
        findings=findings,
        problems=(),
        key_images=tuple(
            KeyImage(index, 5.0 * index, grey, "R", "L", "0 to 80 HU", titles) for index in (1, 3, 5)
        ),
        spans=(),
    )  # fmt: skip
    notice = "It knows synthetic heads alone." if is_demonstration else ""
    engine = EngineRecord(
        "medgemma-4b", None, "ab" * 32, {"vision": "int8"}, notice, has_random_weights,
        is_demonstration,
    )  # fmt: skip
    return TriageReport(created_at, "0.1.0", Effort.FAST, engine, (report,), {}, ())


def with_second_protocol(report: TriageReport, other: TriageReport) -> TriageReport:
    """One result of two protocols."""
    return replace(report, studies=(*report.studies, *other.studies))


def publish(
    state: StateFolder,
    key: str,
    report: TriageReport,
    number: int = 1,
    doubts: tuple[Doubt, ...] = (),
) -> None:
    """What the worker does at the end of a pass."""
    study = report.studies[0]
    with Worklist.open(state) as worklist:
        if number == 1:
            worklist.note_arrivals(key, study.study_uid, "SCANNER", SLICES, doubts)
            worklist.set_waiting(key)
            assert worklist.acquire() is not None
        row = worklist.study(key)
        assert row is not None
        record = ResultRecord(
            study_uid=study.study_uid,
            number=number,
            revision=row.revision,
            instances=SLICES,
            urgency=study.urgency,
            flagged=tuple(finding.code for finding in study.flagged),
            limitations=(),
            modality="CT",
            body_part="head",
            is_final=True,
            doubts=doubts,
            created_at=report.created_at,
        )
        write_result(state, key, record, lambda folder: write_report_folder(report, folder))
        worklist.publish_record(key, record)
