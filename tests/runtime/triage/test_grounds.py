"""What may be said of a study: scope, domain and random weights."""

from dataclasses import replace

import pytest
from support.fake_engine import FakeEngine, demo_scope, known_domain
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.errors import ProtocolError, ScanError
from edge_medgemma.runtime.triage.chat_session import open_scan
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.report import FindingStatus
from edge_medgemma.runtime.triage.scoring.question_scope import require_question_in_scope
from edge_medgemma.runtime.triage.triage_scan import triage_scan
from edge_medgemma.runtime.triage.urgency import Urgency

CALIBRATED = {"intracranial_haemorrhage": (1.0, -2.6)}


@pytest.fixture
def triage(tmp_path):
    """The report of the one study, with a lesion, that an engine is given."""

    def run(engine: FakeEngine, protocol=None, **changes):
        scan = write_head_ct(tmp_path / "scan", **{"lesion": range(4, 8)} | changes)
        options = TriageOptions(protocol=protocol, baseline_folder=tmp_path / "baselines")
        (study,) = triage_scan(engine, scan, options).studies
        return study

    return run


def names(study) -> set[str]:
    return {problem.name for problem in study.problems}


def test_inside_its_domain_the_demo_engine_speaks_and_gives_a_percentage(triage, tmp_path):
    engine = FakeEngine(demo_scope()).calibrate(tmp_path / "engine", known_domain())
    study = triage(engine.fit(CALIBRATED))
    assert study.protocol_name == "head_ct_demo"
    assert study.urgency is Urgency.CRITICAL
    assert study.flagged[0].probability > 0.5
    assert study.distance.ratio < 1 and not study.strange_slices
    assert all(one.calibration_ratio < 1 for one in study.slices)


def test_outside_its_domain_the_demo_engine_is_not_even_asked(triage, tmp_path):
    engine = FakeEngine(demo_scope())
    engine.calibrate(tmp_path / "engine", known_domain(farthest=1e-3))
    study = triage(engine.fit(CALIBRATED))
    assert study.urgency is Urgency.NOT_ASSESSABLE
    assert "unlike_calibration" in names(study)
    assert {f.status for f in study.findings} == {FindingStatus.NOT_ASSESSED}
    assert engine.questions_asked == 0
    assert len(study.strange_slices) == len(study.slices)
    with pytest.raises(ScanError, match="Unlike anything this engine was calibrated on"):
        open_scan(engine, tmp_path / "scan")


@pytest.mark.parametrize(
    ("lesion", "urgency"),
    [(range(4, 8), Urgency.CRITICAL), (range(0), Urgency.NOT_ASSESSABLE)],
)
def test_a_flag_of_another_engine_outlives_its_domain_without_a_percentage(
    triage, tmp_path, lesion, urgency
):
    scope = replace(demo_scope(), is_demonstration=False)
    engine = FakeEngine(scope).calibrate(tmp_path / "engine", known_domain(farthest=1e-3))
    study = triage(engine.fit(CALIBRATED), lesion=lesion)
    assert study.urgency is urgency
    assert "unlike_calibration" in names(study)
    assert all(f.probability is None for f in study.findings)
    assert all("outside what it was calibrated on" in f.reason for f in study.flagged)


def test_an_engine_without_a_domain_says_so_and_a_demo_engine_says_no_more(triage):
    study = triage(FakeEngine(), lesion=range(0))
    assert study.urgency is Urgency.ROUTINE and names(study) == {"domain_not_measured"}
    study = triage(FakeEngine(demo_scope()))
    assert study.urgency is Urgency.NOT_ASSESSABLE
    assert not study.flagged and "domain_not_measured" in names(study)


def test_a_demo_engine_looks_at_heads_alone(triage, tmp_path):
    engine = FakeEngine(demo_scope()).calibrate(tmp_path / "engine", known_domain())
    study = triage(engine, BodyPartExamined="CHEST")
    assert study.urgency is Urgency.NOT_ASSESSABLE
    (problem,) = (one for one in study.problems if one.name == "outside_scope")
    assert problem.detail == "This engine was made for CT of the head alone."
    assert study.findings and {f.status for f in study.findings} == {FindingStatus.NOT_ASSESSED}
    assert engine.images_encoded == 0
    with pytest.raises(ScanError, match="made for CT of the head alone"):
        open_scan(engine, tmp_path / "scan")


def test_a_protocol_with_more_critical_findings_than_the_engine_knows_is_never_passed(
    triage, tmp_path
):
    engine = FakeEngine(demo_scope()).calibrate(tmp_path / "engine", known_domain())
    study = triage(engine, load_protocol("head_ct"), lesion=range(0))
    assert study.urgency is Urgency.NOT_ASSESSABLE
    assert "critical_finding_not_assessed" in names(study)
    assert triage(engine, lesion=range(0)).urgency is Urgency.ROUTINE


def test_random_weights_flag_nothing(triage):
    engine = FakeEngine()
    source = replace(engine.manifest.source, kind="synthetic")
    engine.manifest = replace(engine.manifest, source=source)
    study = triage(engine)
    assert study.urgency is Urgency.NOT_ASSESSABLE and not study.flagged
    assert "random_weights" in names(study)
    assert not any(one.flagged for one in study.passes)
    assert engine.questions_asked, "devices are measured with such engines"


@pytest.mark.parametrize(
    "question",
    [
        "Any intracranial hemorrhage?",
        "HAEMORRHAGES?",
        "Is there a midline shift?",
        *(finding.question for finding in load_protocol("head_ct_demo").findings),
    ],
)
def test_questions_about_findings_that_the_engine_knows_are_asked(question):
    require_question_in_scope(question, demo_scope())


def test_all_other_questions_are_refused_unless_there_is_no_scope():
    for question in ("Is there free gas?", "What do you see?", "Is there an acute infarct?", ""):
        with pytest.raises(ProtocolError, match="intracranial haemorrhage, mass effect"):
            require_question_in_scope(question, demo_scope())
        require_question_in_scope(question, None)


def test_a_scan_of_mostly_empty_slices_is_not_assessable(triage):
    study = triage(FakeEngine(), lesion=range(0), empty=range(11))
    assert study.urgency is Urgency.NOT_ASSESSABLE and "empty_slices" in names(study)
