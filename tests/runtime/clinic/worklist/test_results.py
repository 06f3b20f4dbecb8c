"""Result folders: whole or not there."""

import json
from pathlib import Path

import pytest
from support.clinic_worklist import KEY, result, write_thin_report

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.results import (
    RECORD_FILE,
    latest_result,
    read_records,
    result_folder,
    write_result,
)
from edge_medgemma.runtime.errors import ResourceError


def test_the_latest_is_the_highest_number(state: StateFolder) -> None:
    assert latest_result(state, KEY) is None
    for number in range(1, 12):
        write_result(state, KEY, result(number), write_thin_report)
    assert latest_result(state, KEY) == state.results / KEY / "11"
    assert [record.number for record in read_records(state, KEY)] == list(range(1, 12))


def test_a_report_that_fails_leaves_nothing_that_counts(state: StateFolder) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match="No space left"):
        write_result(state, KEY, result(1), fail)
    assert latest_result(state, KEY) is None
    write_result(state, KEY, result(1), write_thin_report)
    assert latest_result(state, KEY) == result_folder(state, KEY, 1)


def test_a_number_is_given_once(state: StateFolder) -> None:
    write_result(state, KEY, result(1), write_thin_report)
    with pytest.raises(ResourceError):
        write_result(state, KEY, result(1), write_thin_report)


def test_a_record_that_was_altered_is_not_believed(state: StateFolder) -> None:
    path = write_result(state, KEY, result(1), write_thin_report) / RECORD_FILE
    raw = json.loads(path.read_text())
    path.write_text(path.read_text().replace(raw["urgency"], "critical"))
    assert read_records(state, KEY) == ()
