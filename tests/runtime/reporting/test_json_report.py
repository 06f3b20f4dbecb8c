import json
import math
from dataclasses import replace

import pytest
from support.schemas import assert_valid

from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.reporting.json_report import (
    dump_report,
    write_json_report,
)
from edge_medgemma.runtime.triage.urgency import Urgency


def test_the_document_follows_its_schema(report) -> None:
    document = json.loads(dump_report(report))
    assert_valid(document, "triage")
    document["studies"][0]["urgency"] = "green"
    del document["studies"][1]["findings"][0]["score"]
    document["engine"]["manifest_sha256"] = "none"
    with pytest.raises(AssertionError) as caught:
        assert_valid(document, "triage")
    for words in ("'green' is not one of", "'score' is a required", "'none' does not match"):
        assert words in str(caught.value)


def test_studies_stand_in_the_order_of_the_queue(report) -> None:
    document = json.loads(dump_report(report))
    urgencies = [study["urgency"] for study in document["studies"]]
    assert urgencies == ["critical", "not_assessable", "not_assessable", "routine"]
    assert document["urgency"] == "critical"
    assert sum(document["skipped_files"].values()) == 1
    flagged = document["studies"][0]["findings"][0]
    assert flagged["status"] == "flagged" and flagged["key_slices"]
    assert flagged["standard_code"]["value"] == "1386000"


def test_what_is_not_finite_is_null(report) -> None:
    study = report.studies[0]
    finding = replace(study.findings[0], score=math.inf, log_odds=math.nan)
    broken = replace(study, findings=(finding,), urgency=Urgency.NOT_ASSESSABLE)
    document = json.loads(dump_report(replace(report, studies=(broken,))))
    assert document["studies"][0]["findings"][0]["score"] is None
    assert document["studies"][0]["findings"][0]["log_odds"] is None


def test_a_file_is_replaced_whole_or_not_at_all(report, tmp_path, monkeypatch) -> None:
    path = tmp_path / "out" / "triage.json"
    write_json_report(report, path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_json_report(replace(report, studies=()), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["triage.json"]
