from dataclasses import replace

import pytest
from support.synthetic_series import bare_series

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.volume import (
    BodyPart,
    Modality,
    ScanListing,
    Series,
    SkippedFile,
)
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.worklist import plan_studies


def plan(*listed: Series, protocol=None, series_uid=None):
    return plan_studies(ScanListing(listed, ()), protocol, series_uid)


def test_each_study_gets_every_protocol_that_fits() -> None:
    head, chest = bare_series("1.1"), bare_series("1.2", part=BodyPart.CHEST)
    other = bare_series("2.1", study="2", modality=Modality.MR)
    readings = plan(head, chest, other)
    assert [(r.study_name, r.protocol.name, r.series) for r in readings] == [
        ("Study 1", "chest_ct", chest),
        ("Study 1", "head_ct", head),
        ("Study 2", "brain_mr", other),
    ]
    assert readings[0].other_series == (head,)


@pytest.mark.parametrize(
    ("part", "modality", "problem"),
    [
        (BodyPart.UNKNOWN, Modality.CT, "body_part_unknown"),
        (BodyPart.UNKNOWN, Modality.MR, "body_part_unknown"),
        (BodyPart.CHEST, Modality.MR, "no_protocol"),
        (BodyPart.HEAD, Modality.DX, "no_protocol"),
    ],
)
def test_nothing_is_guessed(part, modality, problem) -> None:
    (reading,) = plan(bare_series(part=part, modality=modality))
    assert reading.protocol is None and reading.series is None
    assert reading.problems[0].name == problem
    assert "--protocol" in reading.problems[0].detail


def test_a_named_protocol_takes_a_series_that_fits_before_one_that_does_not() -> None:
    head_ct = load_protocol("head_ct")
    chest, unknown = (
        bare_series("1.1", part=BodyPart.CHEST),
        bare_series("1.2", part=BodyPart.UNKNOWN),
    )
    head = bare_series("1.3", slices=20)
    (reading,) = plan(chest, unknown, head, protocol=head_ct)
    assert reading.series is head and not reading.problems
    (reading,) = plan(unknown, protocol=head_ct)
    assert [p.name for p in reading.problems] == ["body_part_not_stated"]
    (reading,) = plan(chest, protocol=head_ct)
    assert [p.name for p in reading.problems] == ["body_part_conflict"]
    (reading,) = plan(bare_series(modality=Modality.MR), protocol=head_ct)
    assert reading.series is None and [p.name for p in reading.problems] == ["no_series"]


def test_series_without_a_study_are_studies_of_their_own() -> None:
    readings = plan(bare_series("a", study=""), bare_series("b", study=""))
    assert [r.study_name for r in readings] == ["Study 1", "Study 2"]


def test_an_unknown_series_or_an_empty_scan_is_an_error() -> None:
    with pytest.raises(ScanError, match="no series '7'"):
        plan(bare_series(), series_uid="7")
    empty = ScanListing((), (SkippedFile("a", "not an image"),))
    with pytest.raises(ScanError, match="files skipped: 1"):
        plan_studies(empty)


def test_the_order_of_files_does_not_matter() -> None:
    one, two = bare_series("1.1"), replace(bare_series("1.2"), orientation="coronal")
    assert plan(one, two)[0].series is plan(two, one)[0].series is one
