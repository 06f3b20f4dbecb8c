from dataclasses import replace

import numpy as np
import pytest
from support.fake_engine import (
    LESION_LOG_ODDS,
    THOUGHT_BEGIN,
    THOUGHT_END,
    TISSUE_LOG_ODDS,
    YES_BIAS,
    FakeEngine,
    demo_scope,
    known_domain,
)
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.report import Effort, FindingStatus
from edge_medgemma.runtime.triage.scoring.questions import REASONING_TOKENS
from edge_medgemma.runtime.triage.triage_scan import triage_scan
from edge_medgemma.runtime.triage.urgency import Urgency


@pytest.fixture
def options(tmp_path):
    return TriageOptions(baseline_folder=tmp_path / "controls")


def finding(study, code):
    return next(f for f in study.findings if f.code == code)


def test_a_lesion_is_flagged_on_its_slices_and_the_control_removes_the_yes_bias(tmp_path, options):
    scan = write_head_ct(tmp_path / "scan", lesion=range(7, 8))
    (study,) = triage_scan(FakeEngine(), scan, options).studies
    assert study.urgency is Urgency.CRITICAL
    (flagged,) = study.flagged
    assert flagged.code == "intracranial_haemorrhage"
    assert flagged.baseline_log_odds == pytest.approx(YES_BIAS)
    assert flagged.score == pytest.approx(TISSUE_LOG_ODDS + LESION_LOG_ODDS * 36 / 1024)
    assert flagged.probability is None
    assert [key.slice_index for key in flagged.key_slices] == [7]
    assert flagged.key_slices[0].position_mm == pytest.approx(35.0)
    assert flagged.key_slices[0].effect == pytest.approx(
        LESION_LOG_ODDS * 36 / 1024 + TISSUE_LOG_ODDS / 2
    )
    assert flagged.key_slices[0].sop_instance_uid.startswith("1.2.826.")
    assert finding(study, "skull_fracture").score == pytest.approx(TISSUE_LOG_ODDS)
    assert [p.slice_index for p in study.key_images] == [6, 7, 8]
    assert [p.findings for p in study.key_images] == [(), ("Intracranial haemorrhage",), ()]
    assert (study.key_images[0].left_mark, study.key_images[0].right_mark) == ("R", "L")


def test_plans_for_fewer_slices_than_the_protocol_wants_are_filled_and_the_rest_is_said(
    tmp_path, options
):
    scan = write_head_ct(tmp_path / "scan")
    engine = FakeEngine()
    engine.plan_slices = 6
    (study,) = triage_scan(engine, scan, options).studies
    assert len(study.slices) == 6
    assert study.urgency is Urgency.NOT_ASSESSABLE
    (study,) = triage_scan(engine, scan, replace(options, slices=4)).studies
    assert len(study.slices) == 4  # what a person says holds
    engine.plan_slices = 1000
    (study,) = triage_scan(engine, scan, options).studies
    assert len(study.slices) == 20


def test_a_finding_to_be_explained_gets_key_slices_without_being_flagged(tmp_path, options):
    scan = write_head_ct(tmp_path / "scan", lesion=range(7, 8))
    protocol = load_protocol("head_ct")
    missed = replace(
        protocol, findings=tuple(replace(one, threshold=1e6) for one in protocol.findings)
    )
    code = "intracranial_haemorrhage"
    plain = replace(options, protocol=missed)
    (study,) = triage_scan(FakeEngine(), scan, plain).studies
    assert study.explained == ()
    wanted = replace(plain, explained=frozenset([code]))
    (study,) = triage_scan(FakeEngine(), scan, wanted).studies
    assert study.flagged == ()
    assert study.urgency is Urgency.ROUTINE
    assert [one.code for one in study.explained] == [code]
    assert [key.slice_index for key in study.explained[0].key_slices] == [7]
    assert ("Intracranial haemorrhage",) in [p.findings for p in study.key_images]


@pytest.mark.parametrize("part", ["vision_identity", "decoder_identity"])
def test_a_baseline_of_another_kernel_is_not_used(tmp_path, options, part):
    scan = write_head_ct(tmp_path / "scan")
    triage_scan(FakeEngine(), scan, options)
    (baseline,) = options.baseline_folder.iterdir()
    triage_scan(FakeEngine(), scan, options)
    assert list(options.baseline_folder.iterdir()) == [baseline]
    other = FakeEngine()
    setattr(other, part, "a GPU")
    triage_scan(other, scan, options)
    assert len(list(options.baseline_folder.iterdir())) == 2


def test_nothing_flagged_is_routine_with_an_overview(tmp_path, options):
    scan = write_head_ct(tmp_path / "scan")
    report = triage_scan(FakeEngine(), scan, options)
    (study,) = report.studies
    assert study.urgency is report.urgency is Urgency.ROUTINE
    assert not study.flagged and not study.limitations
    assert len(study.key_images) == 3
    assert study.total_s.keys() == {
        "decode", "render", "vision", "compare", "control", "prefill", "score", "evidence",
        "report",
    }  # fmt: skip


def test_the_control_is_measured_once_with_one_image(tmp_path, options):
    scan = write_head_ct(tmp_path / "scan")
    first, second = FakeEngine(), FakeEngine()
    one = triage_scan(first, scan, options).studies[0]
    two = triage_scan(second, scan, options).studies[0]
    assert first.images_encoded == 21 and second.images_encoded == 20
    assert one.findings == two.findings
    entry = next((tmp_path / "controls").iterdir())
    entry.write_text('{"version": 1, "log_odds": {"skull_fracture": 1e9')
    third = FakeEngine()
    assert triage_scan(third, scan, options).studies[0].findings == one.findings
    assert third.images_encoded == 21


def test_numbers_that_are_not_finite_are_never_routine(tmp_path, options):
    engine = FakeEngine()
    engine.broken = True
    scan = write_head_ct(tmp_path / "scan")
    (study,) = triage_scan(engine, scan, options).studies
    assert study.urgency is Urgency.NOT_ASSESSABLE
    assert {f.status for f in study.findings} == {FindingStatus.NOT_ASSESSED}
    assert not (tmp_path / "controls").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"slices": 8}, "insufficient_coverage"),
        ({"slices": 1}, "insufficient_coverage"),
        ({"BodyPartExamined": None}, "body_part_unknown"),
        ({"BodyPartExamined": "FOOT"}, "no_protocol"),
        ({"RescaleIntercept": 2000}, "not_hounsfield"),
        ({"PixelData": np.full((32, 32), -1000, np.int16).tobytes()}, "constant_intensity"),
    ],
)
def test_a_doubt_is_never_routine(tmp_path, options, changes, problem):
    scan = write_head_ct(tmp_path / "scan", **changes)
    (study,) = triage_scan(FakeEngine(), scan, options).studies
    assert study.urgency is Urgency.NOT_ASSESSABLE
    assert problem in {p.name for p in study.problems}
    assert study.limitations


def test_an_unknown_body_part_is_shown_and_the_protocols_are_offered(tmp_path, options):
    scan = write_head_ct(tmp_path / "scan", BodyPartExamined=None)
    (study,) = triage_scan(FakeEngine(), scan, options).studies
    (problem,) = (p for p in study.problems if p.name == "body_part_unknown")
    assert "Head CT without contrast (--protocol head_ct)" in problem.detail
    assert "--protocol brain_mr" not in problem.detail
    assert len(study.key_images) == 3 and study.series.shape[0] == 20
    assert study.slices == () and study.findings == ()


def test_two_reasons_are_both_said(tmp_path, options):
    scan = write_head_ct(tmp_path / "scan", BodyPartExamined=None, RescaleIntercept=2000)
    (study,) = triage_scan(FakeEngine(), scan, options).studies
    assert {"body_part_unknown", "not_hounsfield"} <= {p.name for p in study.problems}
    assert len(study.limitations) == 2


def test_a_flag_stands_in_spite_of_a_doubt(tmp_path, options):
    scan = write_head_ct(tmp_path / "scan", slices=8, lesion=range(3, 5))
    (study,) = triage_scan(FakeEngine(), scan, options).studies
    assert study.urgency is Urgency.CRITICAL
    assert study.limitations


def test_a_named_protocol_is_used_where_the_body_part_is_unknown(tmp_path, options):
    scan = write_head_ct(tmp_path / "scan", BodyPartExamined=None)
    named = replace(options, protocol=load_protocol("head_ct"))
    (study,) = triage_scan(FakeEngine(), scan, named).studies
    assert study.urgency is Urgency.ROUTINE
    assert "body_part_not_stated" in {p.name for p in study.problems}


def test_a_failing_study_is_not_assessable_and_says_no_more_than_the_kind(tmp_path, options):
    write_head_ct(tmp_path / "scan" / "a", study="1")
    write_head_ct(tmp_path / "scan" / "b", study="2", lesion=range(4, 6))
    engine = FakeEngine()
    encode = engine.encode_images

    def fail_first(pixels, on_progress=None):
        if engine.images_encoded == 0:
            engine.images_encoded = 1
            raise RuntimeError("CANARY in a message")
        return encode(pixels, on_progress)

    engine.encode_images = fail_first
    report = triage_scan(engine, tmp_path / "scan", options)
    assert [s.urgency for s in report.studies] == [Urgency.CRITICAL, Urgency.NOT_ASSESSABLE]
    (problem,) = report.studies[1].problems
    assert problem.name == "triage_failed" and "RuntimeError" in problem.detail
    assert "CANARY" not in problem.detail


def test_a_demonstration_engine_answers_only_what_it_learned(tmp_path, options):
    scope = demo_scope("only drawn phantoms", ("skull_fracture",))
    scan = write_head_ct(tmp_path / "scan")
    engine = FakeEngine(scope).calibrate(tmp_path / "engine", known_domain())
    report = triage_scan(engine.fit({"skull_fracture": (2.0, -10.0)}), scan, options)
    (study,) = report.studies
    assert report.engine.notice == "only drawn phantoms"
    fracture = finding(study, "skull_fracture")
    assert fracture.score == pytest.approx(YES_BIAS + TISSUE_LOG_ODDS)
    assert fracture.threshold == 5.0
    assert fracture.probability == pytest.approx(1 / (1 + np.exp(5)))
    assert fracture.baseline_log_odds == pytest.approx(YES_BIAS)
    others = [f for f in study.findings if f.code != "skull_fracture"]
    assert {f.status for f in others} == {FindingStatus.NOT_ASSESSED}
    assert all("not made for" in f.reason for f in others)
    assert study.urgency is Urgency.NOT_ASSESSABLE
    assert "critical_finding_not_assessed" in {p.name for p in study.problems}


def test_an_engine_that_knows_nothing_of_the_protocol_is_not_assessable(tmp_path, options):
    engine = FakeEngine(demo_scope("drawn", ("pneumothorax",)))
    (study,) = triage_scan(engine, write_head_ct(tmp_path / "scan"), options).studies
    assert study.urgency is Urgency.NOT_ASSESSABLE
    assert "no_finding_assessed" in {p.name for p in study.problems}


def test_an_engine_that_does_not_look_is_not_assessable(tmp_path, options, monkeypatch):
    engine = FakeEngine()
    monkeypatch.setattr(
        engine, "encode_images", lambda pixels, *_: np.zeros((len(pixels), 1, 2), np.float32)
    )
    (study,) = triage_scan(engine, write_head_ct(tmp_path / "scan"), options).studies
    assert study.urgency is Urgency.NOT_ASSESSABLE
    assert "slices_without_effect" in {p.name for p in study.problems}


def test_reasoned_effort_scores_behind_the_final_answer(tmp_path, options):
    engine = FakeEngine()
    words = engine.tokenizer.encode(" bright. Final Answer: yes")
    engine.reply = [THOUGHT_BEGIN, *engine.tokenizer.encode(" look"), THOUGHT_END, *words]
    scan = write_head_ct(tmp_path / "scan", lesion=range(7, 10))
    reasoned = replace(options, effort=Effort.REASONED)
    (study,) = triage_scan(engine, scan, reasoned).studies
    flagged = finding(study, "intracranial_haemorrhage")
    assert flagged.status is FindingStatus.FLAGGED
    assert flagged.baseline_log_odds is None
    assert flagged.score == flagged.log_odds
    assert study.urgency is Urgency.CRITICAL and not study.limitations
    assert engine.images_encoded == 20


def test_reasoning_that_does_not_end_is_a_doubt(tmp_path, options):
    engine = FakeEngine()
    engine.reply = [THOUGHT_BEGIN, *range(20, 20 + REASONING_TOKENS)]
    engine.tokenizer.words += ["word"] * (2 * REASONING_TOKENS)
    scan = write_head_ct(tmp_path / "scan")
    (study,) = triage_scan(engine, scan, replace(options, effort=Effort.REASONED)).studies
    details = [p.detail for p in study.problems if p.name == "reasoning_not_finished"]
    assert details and all("token budget" in detail for detail in details)
    assert study.limitations


@pytest.mark.parametrize("opening", [[], [THOUGHT_BEGIN]])
def test_reasoning_in_a_circle_is_a_doubt_whatever_it_says(tmp_path, options, opening):
    engine = FakeEngine()
    engine.reply = [*opening, *engine.tokenizer.encode(" Final Answer: no" * 100)]
    scan = write_head_ct(tmp_path / "scan")
    (study,) = triage_scan(engine, scan, replace(options, effort=Effort.REASONED)).studies
    details = [p.detail for p in study.problems if p.name == "reasoning_not_finished"]
    assert details and all("repeats itself" in detail for detail in details)
    assert study.limitations


def test_a_series_is_chosen_by_its_uid(tmp_path, options):
    write_head_ct(tmp_path / "scan" / "a", study="1")
    write_head_ct(tmp_path / "scan" / "b", study="2")
    chosen = replace(options, series_uid="1.2.3.2.1")
    (study,) = triage_scan(FakeEngine(), tmp_path / "scan", chosen).studies
    assert study.study_uid == "1.2.3.2"
    with pytest.raises(ScanError, match=r"no series '9\.9'"):
        triage_scan(FakeEngine(), tmp_path / "scan", replace(options, series_uid="9.9"))


def test_no_more_slices_than_asked_for(tmp_path, options):
    scan = write_head_ct(tmp_path / "scan", slices=20)
    (study,) = triage_scan(FakeEngine(), scan, replace(options, slices=5)).studies
    assert len(study.slices) == 5
    assert study.preset == "medgemma-ct"


def test_two_people_in_one_study_are_warned_of_and_each_has_a_result(tmp_path, options):
    write_head_ct(tmp_path / "scan", PatientID="A")
    for path in write_head_ct(tmp_path / "b", PatientID="B", lesion=range(8, 12)).iterdir():
        path.rename(tmp_path / "scan" / f"b{path.name}")
    flagged, other = triage_scan(FakeEngine(), tmp_path / "scan", options).studies
    assert (flagged.urgency, other.urgency) == (Urgency.CRITICAL, Urgency.ROUTINE)
    for study in (flagged, other):
        assert study.limitations[0].startswith("check whose scan this is")
