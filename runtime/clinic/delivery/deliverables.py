"""Everything that leaves the box of one result, made once and kept until it has been delivered."""

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from edge_medgemma.runtime.clinic.delivery.content import Told, is_demonstration, tell
from edge_medgemma.runtime.clinic.delivery.document import encapsulated_pdf
from edge_medgemma.runtime.clinic.delivery.fhir import Presented, transaction_bundle
from edge_medgemma.runtime.clinic.delivery.key_slices import key_object_selection
from edge_medgemma.runtime.clinic.delivery.lock import outbox_lock
from edge_medgemma.runtime.clinic.delivery.manifest import (
    MANIFEST_FILE,
    ORU_FILE,
    RECEIPT_FOLDER,
    Manifest,
    ObjectEntry,
    bundle_file,
    entries,
    entry_folder,
    manifest_bytes,
    read_manifest,
    receivers,
)
from edge_medgemma.runtime.clinic.delivery.measurement_report import (
    EarlierObject,
    measurement_report,
)
from edge_medgemma.runtime.clinic.delivery.oru import observation_message
from edge_medgemma.runtime.clinic.delivery.picture import secondary_capture
from edge_medgemma.runtime.clinic.delivery.source import SourceStudy, read_source, text_of
from edge_medgemma.runtime.clinic.delivery.uids import derived_uid
from edge_medgemma.runtime.clinic.settings import ClinicSettings, ResultKind
from edge_medgemma.runtime.clinic.state_folder import StateFolder, sync_folder
from edge_medgemma.runtime.clinic.worklist.records import StudyRow
from edge_medgemma.runtime.clinic.worklist.results import result_folder
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import DeliveryError
from edge_medgemma.runtime.files import new_directory, write_atomically
from edge_medgemma.runtime.reporting.html_report import render_html
from edge_medgemma.runtime.reporting.options import RenderOptions, StudyContext
from edge_medgemma.runtime.reporting.pdf_report import render_pdf
from edge_medgemma.runtime.reporting.report_folder import read_report_folder
from edge_medgemma.runtime.reporting.translation import ENGLISH, languages
from edge_medgemma.runtime.slicing.scan import find_series


def build_deliverables(
    state: StateFolder, settings: ClinicSettings, study_key: str, number: int
) -> None:
    """Make the outbox folder of a result, whole; nothing changes where it is there.

    Nothing is made where nobody is to be sent anything, nor of what the demo engine or random weights
    said, unless the settings say that this is a demonstration.

    Args:
        state: of the box
        settings: who is sent what
        study_key: of the study
        number: of its result, the last pass of a revision

    Raises:
        EvaluationError: the result cannot be read.
        ScanError: no image of the study is left in the spool.
        DependencyError: an extra is not installed.
        ResourceError: the disk is full.
    """
    folder = entry_folder(state, study_key, number)
    to = receivers(settings)
    if not to or _is_whole(folder):
        return
    report = read_report_folder(result_folder(state, study_key, number))
    if is_demonstration(report) and not settings.site.demonstration:
        return
    row = _row(state, study_key)
    told = tell(report, number, row)
    source = read_source(state.spool / study_key, told.study_uid, _wanted(told))
    with outbox_lock(state), new_directory(folder) as temporary:
        earlier = _earlier_result(state, study_key, number)
        made = _Made(told, source, _frames(state.spool / study_key, told, source))
        kinds = {kind for peer in settings.peers for kind in peer.results}
        html = render_html(told.report, _options(settings, told, source, row))
        needs_pdf = ResultKind.PDF in kinds or bool(settings.health_records)
        presented = Presented(html.encode(), render_pdf(html) if needs_pdf else b"")
        objects = made.objects(kinds, presented.pdf, earlier.sr if earlier else None)
        earlier_report_uid = earlier.report_uid if earlier else None
        documents = _documents(settings, made, presented, earlier_report_uid)
        files = {**{entry.file: data for entry, data in objects}, **documents}
        for name, data in files.items():
            write_atomically(temporary / name, data)
        manifest = Manifest(
            manifest_version=1,
            study_key=study_key,
            study_uid=told.study_uid,
            number=number,
            created_at=report.created_at,
            urgency=told.urgency,
            report_uid=made.uid("report"),
            objects=tuple(entry for entry, _ in objects),
            documents={name: hashlib.sha256(data).hexdigest() for name, data in documents.items()},
            destinations=tuple(sorted(to)),
        )
        write_atomically(temporary / MANIFEST_FILE, manifest_bytes(manifest))
        sync_folder(temporary)
    sync_folder(state.outbox)


def _is_whole(folder: Path) -> bool:
    """Whether all is there as it was made; a damaged folder is deleted, to be made and sent again."""
    try:
        manifest = read_manifest(folder)
        files = {**manifest.documents, **{one.file: one.sha256 for one in manifest.objects}}
        is_whole = all(
            hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
            for name, sha256 in files.items()
        )
    except (DeliveryError, OSError):
        is_whole = False
    if not is_whole:
        shutil.rmtree(folder, ignore_errors=True)
    return is_whole


@dataclass(frozen=True, slots=True)
class _Made:
    """What the DICOM objects of one result are made of."""

    told: Told
    source: SourceStudy
    frames: Mapping[tuple[str, int], int]

    def objects(
        self, kinds: set[ResultKind], pdf: bytes, earlier: EarlierObject | None
    ) -> tuple[tuple[ObjectEntry, bytes], ...]:
        """Objects in the order of sending: the picture last, for it is what a viewer then shows."""
        report = measurement_report(
            self.told,
            self.source,
            self.frames,
            sop_instance_uid=self.uid(ResultKind.SR),
            series_uid=self.series_uid(ResultKind.SR),
            earlier=earlier,
        )
        pictures = [
            secondary_capture(
                self.told,
                study,
                self.source,
                sop_instance_uid=self.uid(ResultKind.SC, str(index)),
                series_uid=self.series_uid(ResultKind.SC),
                instance_number=index,
            )
            for index, study in enumerate(self.told.report.studies, start=1)
        ]
        listed = [report] if ResultKind.SR in kinds else []
        listed += pictures if ResultKind.SC in kinds else []
        selection = (
            key_object_selection(
                self.told,
                self.source,
                listed,
                sop_instance_uid=self.uid(ResultKind.KOS),
                series_uid=self.series_uid(ResultKind.KOS),
            )
            if listed or self.source.images
            else None
        )
        document = encapsulated_pdf(
            self.told,
            self.source,
            pdf,
            sop_instance_uid=self.uid(ResultKind.PDF),
            series_uid=self.series_uid(ResultKind.PDF),
        )
        made = [(ResultKind.SR, report), (ResultKind.PDF, document), (ResultKind.KOS, selection)]
        made += [(ResultKind.SC, picture) for picture in pictures]
        return tuple(
            _encoded(kind, index, one)
            for index, (kind, one) in enumerate(made, start=1)
            if kind in kinds and one is not None
        )

    def uid(self, *kind: str) -> str:
        """Of an object: the same whenever it is made of the same result."""
        report = self.told.report
        return derived_uid(
            self.told.study_uid,
            report.engine.sha256,
            str(self.told.number),
            report.created_at,
            *kind,
        )

    def series_uid(self, kind: ResultKind) -> str:
        """Of the series of all objects of a kind and result."""
        return self.uid(kind, "series")


def _encoded(kind: ResultKind, index: int, dataset: Dataset) -> tuple[ObjectEntry, bytes]:
    file = io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(file, dataset, enforce_file_format=True)
    data = file.getvalue()
    entry = ObjectEntry(
        kind=kind,
        file=f"{index}-{kind}.dcm",
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return entry, data


def _documents(
    settings: ClinicSettings, made: _Made, presented: Presented, earlier_report_uid: str | None
) -> dict[str, bytes]:
    """File name to content, for health-record systems; nothing without one."""
    if not settings.health_records:
        return {}
    site_name, report_uid = settings.site.name, made.uid("report")
    files = {
        bundle_file(record.name): json.dumps(
            transaction_bundle(
                made.told,
                made.source,
                presented,
                site_name=site_name,
                patient_system=record.patient_system,
                report_uid=report_uid,
                earlier_report_uid=earlier_report_uid,
            ),
            ensure_ascii=False,
            sort_keys=True,
        ).encode()
        for record in settings.health_records
    }
    message = observation_message(
        made.told, made.source, report_uid=report_uid, site_name=site_name
    )
    return {**files, ORU_FILE: message}


def _options(
    settings: ClinicSettings, told: Told, source: SourceStudy, row: StudyRow | None
) -> RenderOptions:
    """How the report is shown: in the site's language, with what only the worklist knows."""
    accession = text_of(source.identity, "AccessionNumber") if settings.site.show_accession else ""
    flagged = {one.title for study in told.report.studies for one in study.flagged}
    context = StudyContext(
        accession_number=accession,
        doubts=tuple(str(doubt) for doubt in row.doubts) if row is not None else (),
        earlier_flags=tuple(one.title for one in told.findings if one.title not in flagged),
        short_key=row.key[:8] if row is not None else "",
    )
    language = settings.site.language if settings.site.language in languages() else ENGLISH
    return RenderOptions(language=language, studies={told.study_uid: context})


def _row(state: StateFolder, study_key: str) -> StudyRow | None:
    with contextlib.closing(Worklist.open(state)) as worklist:
        return worklist.study(study_key)


def _wanted(told: Told) -> set[str]:
    """Images to be referred to: key slices, and what the pictures show where there are none."""
    keys = {uid for finding in told.findings for uid, _ in finding.key_slices}
    if keys:
        return keys
    shown = set()
    for study in told.report.studies:
        indices = {image.slice_index for image in study.key_images}
        shown |= {one.sop_instance_uid for one in study.slices if one.slice_index in indices}
    return shown - {""}


def _frames(folder: Path, told: Told, source: SourceStudy) -> dict[tuple[str, int], int]:
    """SOP Instance UID and slice index -> frame number, of the multi-frame images among the key slices."""
    if not any(int(one.get("NumberOfFrames") or 1) > 1 for one in source.images.values()):
        return {}
    shapes = {(s.series.series_uid, s.series.shape) for s in told.report.studies if s.series}
    return {
        (one.sop_instance_uid, index): one.frame + 1
        for series in find_series(folder).series
        if (series.series_uid, series.shape) in shapes
        for index, one in enumerate(series.sources)
    }


@dataclass(frozen=True, slots=True)
class _EarlierResult:
    """What the result before this one was called where it went."""

    report_uid: str
    sr: EarlierObject | None


def _earlier_result(state: StateFolder, study_key: str, number: int) -> _EarlierResult | None:
    """The newest result before this one of which anything has begun to leave."""
    before = [one for one in entries(state) if one.study_key == study_key and one.number < number]
    for entry in reversed(before):
        if not (entry.folder / RECEIPT_FOLDER).is_dir():
            continue
        try:
            manifest = read_manifest(entry.folder)
        except DeliveryError:
            continue
        reports = [
            EarlierObject(
                one.sop_class_uid, one.sop_instance_uid, manifest.study_uid, one.series_uid
            )
            for one in manifest.objects
            if one.kind is ResultKind.SR
        ]
        return _EarlierResult(manifest.report_uid, reports[0] if reports else None)
    return None
