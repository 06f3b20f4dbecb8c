"""Coarse passes, refinement, budgets and interruptions of a whole triage."""

import json
import time

import numpy as np
import pytest
from click.testing import CliRunner
from support.fake_engine import FakeEngine, FakePrefix
from support.synthetic_series import write_head_ct

from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.runtime.commands import triage
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.report import FindingStatus
from edge_medgemma.runtime.triage.triage_scan import triage_scan
from edge_medgemma.runtime.triage.urgency import Urgency

AMPLE_S = 1e6


@pytest.fixture
def choose(tmp_path):
    """Options with a control folder of the test's own."""
    return lambda **chosen: TriageOptions(baseline_folder=tmp_path / "controls", **chosen)


class TimedEngine(FakeEngine):
    """Moves a clock of its own: a second to encode a slice, a fifth to read one."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def encode_images(self, pixels, on_progress=None):
        self.now_s += len(pixels)
        return super().encode_images(pixels, on_progress)

    def new_prefix(self, expected_tokens=0):
        engine = self

        class TimedPrefix(FakePrefix):
            def extend(self, chunk, features=None, **options):
                engine.now_s += 0.2 * chunk.images
                super().extend(chunk, features, **options)

        return TimedPrefix(self)


@pytest.fixture
def timed_engine(monkeypatch):
    engine = TimedEngine()
    monkeypatch.setattr(time, "perf_counter", lambda: engine.now_s)
    return engine


def passes_of(study):
    return [one.slices for one in study.passes]


def test_a_lesion_between_the_coarse_slices_is_found_by_refinement(tmp_path, choose) -> None:
    scan = write_head_ct(tmp_path / "scan", lesion=range(4, 5))
    reports = []
    triage_scan(FakeEngine(), scan, choose(until_settled=True), on_report=reports.append)
    studies = [report.studies[0] for report in reports]
    assert [study.urgency for study in studies] == [
        Urgency.NOT_ASSESSABLE,  # five slices are too few to say that there is nothing
        Urgency.CRITICAL,
        Urgency.CRITICAL,
    ]
    assert passes_of(studies[-1]) == [5, 10, 20]
    assert [one.largest_gap_mm for one in studies[-1].passes] == [20.0, 10.0, 5.0]
    assert "too few slices were looked at" in studies[0].limitations


def test_what_has_settled_is_not_looked_at_again(tmp_path, choose) -> None:
    engine = FakeEngine()
    scan = write_head_ct(tmp_path / "scan")
    engine.pathology = "nothing that is asked for"
    (study,) = triage_scan(engine, scan, choose(until_settled=True)).studies
    # Every score lies half a unit below its threshold, too near to call it settled.
    assert passes_of(study) == [5, 10, 20]
    lesion = write_head_ct(tmp_path / "lesion", lesion=range(20))
    engine = FakeEngine(pathology="Answer")
    (study,) = triage_scan(engine, lesion, choose(until_settled=True)).studies
    assert passes_of(study) == [5, 10]
    assert engine.images_encoded == 10, "ten slices; the controls are kept"


@pytest.mark.parametrize("lesion", [range(0), range(6, 12)])
def test_the_last_pass_over_all_slices_says_what_a_triage_without_passes_says(
    tmp_path, choose, lesion
) -> None:
    scan = write_head_ct(tmp_path / "scan", lesion=lesion)
    (whole,) = triage_scan(FakeEngine(), scan, choose()).studies
    engine = FakeEngine()
    (study,) = triage_scan(engine, scan, choose(budget_s=AMPLE_S)).studies
    assert passes_of(study) == [5, 20] and passes_of(whole) == [20]
    assert engine.images_encoded == 21, "no slice is encoded twice"
    assert (study.findings, study.slices, study.urgency, study.problems) == (
        whole.findings, whole.slices, whole.urgency, whole.problems,
    )  # fmt: skip
    for one, other in zip(study.key_images, whole.key_images, strict=True):
        assert one.slice_index == other.slice_index
        np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("budget_s", [6.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0])
def test_no_pass_is_begun_that_would_not_end_in_time(
    tmp_path, choose, timed_engine, budget_s
) -> None:
    scan = write_head_ct(tmp_path / "scan")
    (study,) = triage_scan(timed_engine, scan, choose(budget_s=budget_s)).studies
    assert timed_engine.now_s <= budget_s
    assert study.passes[-1].slices == {6.0: 3, 12.0: 5, 15.0: 5, 20.0: 8, 25.0: 10}.get(
        budget_s, 15 if budget_s < 40 else 20
    )


def test_a_budget_too_small_still_buys_the_least_look_at_every_study(
    tmp_path, choose, timed_engine
) -> None:
    for study in "123":
        lesion = range(9, 12) if study == "3" else range(0)
        write_head_ct(tmp_path / "scan" / study, study=study, lesion=lesion)
    report = triage_scan(timed_engine, tmp_path / "scan", choose(budget_s=0.5))
    assert [passes_of(study) for study in report.studies] == [[3], [3], [3]]
    assert [study.urgency for study in report.studies] == [
        Urgency.CRITICAL, Urgency.NOT_ASSESSABLE, Urgency.NOT_ASSESSABLE,
    ]  # fmt: skip


def test_every_study_is_looked_at_before_any_is_looked_at_again(
    tmp_path, choose, timed_engine
) -> None:
    for study in "123":
        lesion = range(9, 12) if study == "1" else range(0)
        write_head_ct(tmp_path / "scan" / study, study=study, lesion=lesion)
    reports = []
    options = choose(until_settled=True)
    triage_scan(timed_engine, tmp_path / "scan", options, on_report=reports.append)
    looks = [{s.name: passes_of(s) for s in report.studies} for report in reports]
    assert looks[0] == {"Study 1": [5], "Study 2": [], "Study 3": []}
    assert looks[2] == {"Study 1": [5], "Study 2": [5], "Study 3": [5]}
    waiting = next(s for s in reports[0].studies if s.name == "Study 2")
    assert waiting.urgency is Urgency.NOT_ASSESSABLE
    assert waiting.limitations == ("it was not looked at yet",)
    # Study 1 is critical already: the others, whose urgency can still rise, go first.
    assert looks[4] == {"Study 1": [5], "Study 2": [5, 10], "Study 3": [5, 10]}
    assert timed_engine.images_encoded <= 60 + 3, "no slice twice, a blank one for each control"


def test_an_image_alone_has_one_pass(tmp_path, choose) -> None:
    scan = write_head_ct(tmp_path / "scan", slices=1)
    for options in (choose(budget_s=AMPLE_S), choose(until_settled=True)):
        (study,) = triage_scan(FakeEngine(), scan, options).studies
        assert passes_of(study) == [1]


def test_a_failing_refinement_leaves_the_result_of_the_pass_before(tmp_path, choose) -> None:
    scan = write_head_ct(tmp_path / "scan", lesion=range(9, 12))
    engine = FakeEngine()
    encode = engine.encode_images

    def fail_later(pixels, on_progress=None):
        if engine.images_encoded >= 5 + 1:  # a coarse pass and the blank slice
            raise MemoryError
        return encode(pixels, on_progress)

    engine.encode_images = fail_later
    (study,) = triage_scan(engine, scan, choose(until_settled=True)).studies
    assert passes_of(study) == [5] and study.urgency is Urgency.CRITICAL
    assert "refinement_failed" in {p.name for p in study.problems}


def test_ctrl_c_leaves_the_result_of_the_last_pass(tmp_path, monkeypatch) -> None:
    engine = FakeEngine()
    encode = engine.encode_images

    def interrupt_later(pixels, on_progress=None):
        if engine.images_encoded >= 5 + 1:  # a coarse pass and the blank slice
            raise KeyboardInterrupt
        return encode(pixels, on_progress)

    engine.encode_images = interrupt_later
    monkeypatch.setattr(triage.Engine, "open", lambda directory, **_: engine)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scan = write_head_ct(tmp_path / "scan", lesion=range(9, 12))
    out = tmp_path / "out"
    arguments = [str(scan), "--out", str(out), "--slices", "auto", "--no-cache"]
    result = CliRunner().invoke(triage.command, arguments)
    assert result.exit_code == 130
    assert "interrupted; this is the result of the last finished pass" in result.stderr
    assert "critical" in result.stdout
    (study,) = json.loads((out / "triage.json").read_text())["studies"]
    assert [one["slices"] for one in study["passes"]] == [5]
    assert study["urgency"] == "critical"
    assert (out / "report.html").exists()


@pytest.mark.parametrize("seed", [3000005, 3000008, 3000193])
def test_the_built_in_engine_finds_by_refinement_what_the_coarse_pass_missed(
    tmp_path, choose, seed
) -> None:
    """Lesions of these phantoms lie between or at the edge of the coarse slices."""
    phantom = draw_phantom(seed)
    scan = tmp_path / "scan"
    scan.mkdir()
    write_dicom_series(phantom, scan)
    reports = []
    with Engine.open(BUILTIN_ENGINE) as engine:
        (whole,) = triage_scan(engine, scan, choose()).studies
        triage_scan(engine, scan, choose(until_settled=True), on_report=reports.append)
        (everything,) = triage_scan(engine, scan, choose(budget_s=AMPLE_S)).studies
    coarse, settled = reports[0].studies[0], reports[-1].studies[0]
    missed = phantom.findings - {finding.code for finding in coarse.flagged}
    assert missed and coarse.urgency is not Urgency.ROUTINE
    assert phantom.findings <= {finding.code for finding in settled.flagged}
    for one, other in zip(everything.findings, whole.findings, strict=True):
        if other.status is FindingStatus.FLAGGED or one.status is FindingStatus.NOT_FLAGGED:
            assert one.score == pytest.approx(other.score, abs=1e-4)
