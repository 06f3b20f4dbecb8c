"""Fitted thresholds are used where everything matches, and say why where it does not."""

import math
from dataclasses import replace

import pytest
from support.fake_engine import FakeEngine, demo_scope, known_domain, operating_points
from support.schemas import assert_valid
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.errors import ThresholdError
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.report import Effort, FindingStatus
from edge_medgemma.runtime.triage.scoring.findings import score_finding
from edge_medgemma.runtime.triage.scoring.operating_points import (
    THRESHOLDS_NAME,
    dump_operating_points,
    fitting_points,
    read_operating_points,
)
from edge_medgemma.runtime.triage.triage_scan import triage_scan

CODES = ("intracranial_haemorrhage", "mass_effect", "skull_fracture")
PLATT = dict.fromkeys(CODES, (0.5, -1.0))
HAEMORRHAGE = load_protocol("head_ct").findings[0]
POINT = operating_points("0" * 64, PLATT).protocols[0].findings[0]


@pytest.fixture
def engine(tmp_path) -> FakeEngine:
    return FakeEngine(demo_scope()).calibrate(tmp_path / "engine", known_domain())


def triage(engine, tmp_path, **options):
    scan = tmp_path / "scan"
    if not scan.exists():
        write_head_ct(scan, lesion=range(4, 8))
    chosen = TriageOptions(baseline_folder=tmp_path / "baselines", **options)
    (study,) = triage_scan(engine, scan, chosen).studies
    return study


def reason(study) -> str:
    found = [one.detail for one in study.problems if one.name == "thresholds_not_used"]
    return found[0] if found else ""


def test_the_baseline_is_subtracted_only_without_a_fitted_threshold() -> None:
    plain = score_finding(HAEMORRHAGE, 4.0, 3.0, None)
    assert (plain.value, plain.threshold, plain.probability) == (1.0, 0.0, None)
    assert score_finding(HAEMORRHAGE, 4.0, None, None).value == 4.0
    fitted = score_finding(HAEMORRHAGE, 4.0, 3.0, POINT)
    assert (fitted.value, fitted.threshold) == (4.0, 2.0)
    assert fitted.probability == pytest.approx(1 / (1 + math.exp(-1)))
    assert score_finding(HAEMORRHAGE, -1e6, None, POINT).probability == 0.0
    assert math.isnan(score_finding(HAEMORRHAGE, 4.0, math.nan, None).value)


def test_a_score_at_a_fitted_threshold_is_flagged_and_the_answer_to_blank_slices_is_not() -> None:
    assert score_finding(HAEMORRHAGE, 2.0, None, POINT).is_flagged
    assert not score_finding(HAEMORRHAGE, math.nextafter(2.0, -9), None, POINT).is_flagged
    assert score_finding(HAEMORRHAGE, math.nextafter(3.0, 9), 3.0, None).is_flagged
    assert not score_finding(HAEMORRHAGE, 3.0, 3.0, None).is_flagged
    for point in (None, POINT):
        assert not score_finding(HAEMORRHAGE, math.nan, None, point).is_flagged


def test_where_everything_matches_it_decides_and_a_percentage_is_given(engine, tmp_path) -> None:
    study = triage(engine.fit(PLATT), tmp_path)
    assert not reason(study)
    for finding in study.findings:
        assert finding.threshold == 2.0 and finding.score == finding.log_odds
        assert finding.probability == POINT.probability(finding.log_odds)
        assert (finding.status is FindingStatus.FLAGGED) == (finding.log_odds >= 2.0)
    strict = triage(engine.fit(dict.fromkeys(CODES, (0.001, -1.0))), tmp_path)
    assert study.flagged and not strict.flagged


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"engine_sha256": "1" * 64}, {}, "another engine"),
        ({"protocol": "chest_ct", "protocol_sha256": "1" * 64}, {}, "other protocols"),
        ({"protocol_sha256": "1" * 64}, {}, "an earlier version of protocol head_ct_demo"),
        ({"effort": Effort.REASONED}, {}, "reasoned effort, not for fast"),
        ({}, {"slices": 12}, "24 slices, not for 12"),
        ({"least_slices": 3, "most_slices": 8}, {}, "3 to 8 slices, not for 24"),
    ],
)
def test_otherwise_it_is_not_used_and_the_study_says_why(
    engine, tmp_path, changes, options, words
) -> None:
    without = triage(engine, tmp_path, **options)
    study = triage(engine.fit(PLATT, **changes), tmp_path, **options)
    assert words in reason(study) and not reason(without)
    assert study.findings == without.findings
    assert all(one.probability is None for one in study.findings)


def test_a_finding_without_a_fitted_threshold_keeps_the_protocols(engine, tmp_path) -> None:
    study = triage(engine.fit({CODES[0]: PLATT[CODES[0]]}), tmp_path)
    assert "No threshold was fitted for Mass effect or midline shift, Skull fracture." in reason(
        study
    )
    percentages = {one.code: one.probability is not None for one in study.findings}
    assert percentages == {CODES[0]: True, CODES[1]: False, CODES[2]: False}


def test_a_coarse_pass_gives_no_percentage_and_the_pass_over_all_slices_does(
    engine, tmp_path
) -> None:
    engine.fit(PLATT)
    coarse = triage(engine, tmp_path, budget_s=1e-6)
    assert len(coarse.slices) < 12 and "24 slices, not for" in reason(coarse)
    assert all(one.probability is None for one in coarse.findings)
    complete = triage(engine, tmp_path, budget_s=600.0)
    assert not reason(complete)
    assert all(one.probability is not None for one in complete.findings if not one.reason)


def test_a_named_file_comes_before_that_of_the_engine(engine, tmp_path) -> None:
    engine.fit(dict.fromkeys(CODES, (0.001, -1.0)))
    other = tmp_path / "other.json"
    other.write_text(dump_operating_points(operating_points(engine.manifest.sha256, PLATT)))
    assert triage(engine, tmp_path, thresholds=other).flagged


def test_a_file_that_is_missing_or_altered_is_refused_in_one_line(tmp_path) -> None:
    assert read_operating_points(tmp_path) is None
    with pytest.raises(ThresholdError, match="no file of thresholds"):
        read_operating_points(tmp_path, tmp_path / "absent.json")
    with pytest.raises(ThresholdError, match="cannot be read"):
        read_operating_points(tmp_path, tmp_path)
    text = dump_operating_points(operating_points("0" * 64, PLATT))
    path = tmp_path / THRESHOLDS_NAME
    for damaged in (text.replace('"threshold": 2.0', '"threshold": 1.0', 1), "", "[]", text[:-9]):
        assert damaged != text
        path.write_text(damaged)
        with pytest.raises(ThresholdError, match="altered or no file of thresholds"):
            read_operating_points(tmp_path)
    path.write_text(text)
    assert read_operating_points(tmp_path) == operating_points("0" * 64, PLATT)


def test_entries_that_would_fit_the_same_run_are_refused(tmp_path) -> None:
    points = operating_points("0" * 64, PLATT)
    (entry,) = points.protocols
    with pytest.raises(ValueError, match="two entries fit the same run"):
        replace(points, protocols=(entry, replace(entry, least_slices=3)))
    replace(points, protocols=(entry, replace(entry, least_slices=3, most_slices=23)))
    with pytest.raises(ValueError, match="stands twice"):
        replace(entry, findings=(POINT, POINT))


@pytest.mark.parametrize("protocol", ["head_ct_demo", "head_ct"])
@pytest.mark.parametrize("slices", [3, 24, 85])
def test_the_demo_engine_comes_with_thresholds_that_fit_it(protocol: str, slices: int) -> None:
    assert_valid(BUILTIN_ENGINE / THRESHOLDS_NAME, "thresholds")
    points = read_operating_points(BUILTIN_ENGINE)
    engine_sha256 = load_manifest(BUILTIN_ENGINE).sha256
    asked = load_protocol("head_ct_demo").findings
    fitting = fitting_points(
        points, engine_sha256, load_protocol(protocol), asked, Effort.FAST, slices
    )
    assert set(fitting.by_finding) == set(CODES) and fitting.problem is None
