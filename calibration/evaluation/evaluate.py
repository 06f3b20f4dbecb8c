"""An evaluation from its inputs to its files, for one engine or two."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge_medgemma.calibration.evaluation.cases import EvaluationPlan, plan_evaluation
from edge_medgemma.calibration.evaluation.comparison import compare
from edge_medgemma.calibration.evaluation.datasets.registry import layout_of, read_labels
from edge_medgemma.calibration.evaluation.document import Comparison, EvaluationDocument
from edge_medgemma.calibration.evaluation.page import write_page
from edge_medgemma.calibration.evaluation.predictions import (
    PREDICTIONS_NAME,
    make_predictions,
    write_predictions,
)
from edge_medgemma.calibration.evaluation.radiographs import find_pictures, is_picture_folder
from edge_medgemma.calibration.evaluation.records import Labels, Prediction
from edge_medgemma.calibration.evaluation.requirements import (
    check_findings,
    check_prevalences,
)
from edge_medgemma.calibration.evaluation.results import StudyResult
from edge_medgemma.calibration.evaluation.run import RESULTS_NAME, EngineChoice, run_cases
from edge_medgemma.calibration.evaluation.summary import (
    SummaryOptions,
    engine_provenance,
    summarise,
)
from edge_medgemma.runtime.commands.progress import OnStage
from edge_medgemma.runtime.documents import dump_json
from edge_medgemma.runtime.errors import EvaluationError
from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.manifest import Manifest, load_manifest
from edge_medgemma.runtime.slicing.scan import find_series
from edge_medgemma.runtime.slicing.volume import ScanListing
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.scoring.operating_points import (
    OperatingPoints,
    read_operating_points,
)

DOCUMENT_NAME = "evaluation.json"

MAX_DATASET_FILES = 1_000_000
"""Files of all studies; the training part of RSNA's haemorrhage challenge has 752,803."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is evaluated, and where it goes."""

    scans: Path
    labels: Path
    dataset: str
    """A name of LAYOUTS."""
    reference: str
    engine: EngineChoice
    other: EngineChoice | None
    """Compared with the first in pairs."""
    out: Path


def evaluate(
    inputs: Inputs, triage: TriageOptions, summary: SummaryOptions, on_progress: OnStage
) -> EvaluationDocument:
    """Triage the scans once, or what is left of them, and write table, document and page.

    Raises:
        LabelError: the labels cannot be read.
        ScanError: no scan can be read, or no label fits any.
        EvaluationError: nothing that is labelled is asked, a demand names another finding, or the
            folder holds results of another run.
        ThresholdError: the file of fitted thresholds is missing or altered.
        EngineError, ResourceError: as `triage_scan`.
    """
    manifest = load_manifest(inputs.engine.directory)
    own_codes = () if triage.protocol is None else [f.code for f in triage.protocol.findings]
    labels = read_labels(inputs.dataset, inputs.labels, inputs.reference, own_codes)
    layout = layout_of(inputs.dataset, inputs.labels)
    folder = layout.scan_folder(inputs.scans)
    reading = partial(on_progress, "reading headers")
    if is_picture_folder(folder):
        listing = find_pictures(folder, layout, labels, reading)
    else:
        modality = triage.modality or layout.modality
        listing = find_series(folder, reading, modality, MAX_DATASET_FILES)
    plan = plan_evaluation(listing, folder, labels, layout, manifest.scope, triage.protocol)
    check_findings(summary.demands, plan.codes)
    check_prevalences(summary.prevalences, plan.codes)
    thresholds = read_operating_points(inputs.engine.directory, triage.thresholds)
    _check_not_fitted_here(thresholds, manifest, plan)
    results = run_cases(inputs.engine, plan, triage, inputs.out / RESULTS_NAME, on_progress)
    predictions = make_predictions(plan, results)
    comparison = _compared(inputs, triage, listing, labels, predictions, results, on_progress)
    summary = replace(summary, thresholds=thresholds)
    document = summarise(plan, results, predictions, manifest, summary, comparison)
    write_predictions(inputs.out / PREDICTIONS_NAME, predictions)
    write_atomically(inputs.out / DOCUMENT_NAME, dump_json(document).encode())
    write_page(document, inputs.out)
    return document


def _check_not_fitted_here(
    thresholds: OperatingPoints | None, manifest: Manifest, plan: EvaluationPlan
) -> None:
    """Refuse to report thresholds on any scan that they were fitted on.

    Raises:
        EvaluationError: some of the scans took part in the fit.
    """
    if thresholds is None or thresholds.engine_sha256 != manifest.sha256:
        return
    fitted = set(thresholds.cases).intersection(case.key for case in plan.cases)
    if fitted:
        raise EvaluationError(
            f"the thresholds were fitted on {len(fitted)} of these {len(plan.cases)} scans, which would "
            "flatter every figure; evaluate other scans, or see the file of thresholds for what it "
            "measured on patients left out"
        )


def _compared(
    inputs: Inputs,
    triage: TriageOptions,
    listing: ScanListing,
    labels: Labels,
    first: tuple[Prediction, ...],
    results: Mapping[str, StudyResult],
    on_progress: OnStage,
) -> Comparison | None:
    """The second engine on the same scans; None where there is none."""
    if inputs.other is None:
        return None
    manifest = load_manifest(inputs.other.directory)
    layout = layout_of(inputs.dataset, inputs.labels)
    folder = layout.scan_folder(inputs.scans)
    plan = plan_evaluation(listing, folder, labels, layout, manifest.scope, triage.protocol)
    path = inputs.out / f"results-{manifest.sha256[:12]}.jsonl"
    own = replace(triage, thresholds=None)  # a file of thresholds is of one engine
    other = run_cases(inputs.other, without_pictures(plan), own, path, on_progress)
    titles = {answer.code: answer.title for one in results.values() for answer in one.answers}
    codes = {code: titles[code] for code in plan.codes if code in titles}
    return compare(
        first, make_predictions(plan, other), engine_provenance(manifest), codes | titles
    )


def without_pictures(plan: EvaluationPlan) -> EvaluationPlan:
    """The plan with no truth in its cases, so that no wrong answer is explained."""
    studies = tuple(
        replace(
            study,
            cases=tuple(
                replace(case, present=frozenset(), absent=frozenset()) for case in study.cases
            ),
        )
        for study in plan.studies
    )
    return replace(plan, studies=studies)
