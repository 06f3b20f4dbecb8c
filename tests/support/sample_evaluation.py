"""An evaluation of drawn answers: predictions and document as 'edge-medgemma evaluate' makes them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from support.fake_engine import demo_scope, fake_manifest

from edge_medgemma.calibration.evaluation.cases import Case, EvaluationPlan, LabelledStudy
from edge_medgemma.calibration.evaluation.comparison import compare
from edge_medgemma.calibration.evaluation.document import (
    EvaluationDocument,
    Picture,
    ProtocolProvenance,
)
from edge_medgemma.calibration.evaluation.matching import Match
from edge_medgemma.calibration.evaluation.predictions import make_predictions
from edge_medgemma.calibration.evaluation.records import LabelRow, Labels, Outcome, Prediction
from edge_medgemma.calibration.evaluation.requirements import parse_demand
from edge_medgemma.calibration.evaluation.results import Answer, StudyResult
from edge_medgemma.calibration.evaluation.summary import (
    SummaryOptions,
    engine_provenance,
    summarise,
)
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Series
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.report import Effort
from edge_medgemma.runtime.triage.worklist import StudyTask

PROTOCOL = load_protocol("head_ct_demo")
PREVALENCE = {"intracranial_haemorrhage": 0.4, "mass_effect": 0.3, "skull_fracture": 0.03}
NO_SLICES = "too little of the body part is in the series; send all slices"
MANIFEST = fake_manifest(replace(demo_scope(), is_demonstration=False))


def sample_plan(studies: int) -> EvaluationPlan:
    """Labelled studies, one patient each but for every tenth, who comes twice."""
    rng = np.random.default_rng(0)
    found = []
    for place in range(studies):
        findings = {code: bool(rng.random() < share) for code, share in PREVALENCE.items()}
        attributes = {"sex": "male" if place % 3 else "female", "site": f"S{place % 29 // 9}"}
        patient = f"P{place - (place % 10 == 9)}"
        row = LabelRow(f"scan{place:03}", findings, patient, attributes)
        task = StudyTask(f"Study {place}", f"1.2.{place}", PROTOCOL, _series(place), "", (), ())
        present = frozenset(code for code, is_there in findings.items() if is_there)
        case = Case(f"{place:024x}", task, present, frozenset(PREVALENCE) - present)
        found.append(LabelledStudy(row.key, row, (case,)))
    rows = tuple(one.row for one in found if one.row)
    labels = Labels("table", rows, tuple(PREVALENCE), "a" * 64, ("column `age` is not used",))
    match = Match(dict(enumerate(rows)), ("scan900", "<b>scan901"), (), (), ())
    return EvaluationPlan(tuple(found), labels, match, {"not an image": 3}, tuple(PREVALENCE))


def _series(place: int) -> Series:
    return Series(
        f"1.2.{place}", f"1.3.{place}", Modality.CT, BodyPart.HEAD, (24, 8, 8), np.eye(4),
        np.arange(24.0), (5.0, 1.0, 1.0), "axial", (), (),
    )  # fmt: skip


def sample_results(
    plan: EvaluationPlan, seed: int = 1, noise: float = 1.0, pictures: Sequence[Picture] = ()
) -> dict[str, StudyResult]:
    """Answers that separate well, but for one study in thirty, which is not assessable."""
    rng = np.random.default_rng(7)
    own = np.random.default_rng(seed)
    results = {}
    for place, case in enumerate(plan.cases):
        limitations = (NO_SLICES,) if place % 30 == 17 else ()
        answers = []
        for finding in PROTOCOL.findings:
            is_there = finding.code in case.present
            value = float(rng.normal(1.5 if is_there else -2.5) + own.normal() * (noise - 1))
            flagged = value >= 0
            missed = Outcome.NOT_ASSESSABLE if limitations else Outcome.NOT_FLAGGED
            shown = tuple(pictures) if flagged != is_there else ()
            answers.append(
                Answer(finding.code, finding.title, Outcome.FLAGGED if flagged else missed, "",
                       value, -4.0, value, float(1 / (1 + np.exp(-value))), 0.0, shown)
            )  # fmt: skip
        provenance = ProtocolProvenance(PROTOCOL.name, PROTOCOL.title, PROTOCOL.sha256, 24)
        results[case.key] = StudyResult(
            case.key, case.task.study_uid, f"1.3.{place}", provenance, tuple(answers), limitations,
            24, 1.0 + place % 7 / 10, {"thickness": "over 3 to 5 mm"},
        )  # fmt: skip
    return results


def sample_evaluation(
    studies: int = 120, pictures: Sequence[Picture] = (), *, is_compared: bool = False
) -> tuple[EvaluationDocument, tuple[Prediction, ...]]:
    plan = sample_plan(studies)
    results = sample_results(plan, pictures=pictures)
    predictions = make_predictions(plan, results)
    options = SummaryOptions(
        effort=Effort.FAST,
        slices=None,
        reference="majority",
        attributes=("sex", "site", "thickness"),
        prevalences={"intracranial_haemorrhage": 0.05},
        demands=(parse_demand("sensitivity(intracranial_haemorrhage)>=0.8"),
                 parse_demand("auc_low(mass_effect)>=0.999")),
    )  # fmt: skip
    comparison = None
    if is_compared:
        second = make_predictions(plan, sample_results(plan, seed=2, noise=1.8))
        other = replace(MANIFEST, tools={"other": "1"})
        titles = {one.code: one.title for one in PROTOCOL.findings}
        comparison = compare(predictions, second, engine_provenance(other), titles)
    document = summarise(plan, results, predictions, MANIFEST, options, comparison)
    return document, predictions
