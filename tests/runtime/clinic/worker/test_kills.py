"""The worker killed at every step of a look: no result is lost, none is there twice."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.clinic_kills import run_killed_at
from support.clinic_worklist import arrive

from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker.publishing import publish, read_latest
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.order import needs_coarse_look
from edge_medgemma.runtime.clinic.worklist.records import StudyState
from edge_medgemma.runtime.clinic.worklist.results import read_records, result_numbers
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.report import TriageReport
from edge_medgemma.runtime.triage.triage_scan import triage_scan

STEPS = 400
"""More than there are."""


@pytest.fixture(scope="module")
def report(bleed: tuple[Path, ...], tiny_engine: Engine) -> TriageReport:
    """A small report; what stands in it does not matter here."""
    report = triage_scan(tiny_engine, bleed[0])
    studies = tuple(replace(study, key_images=()) for study in report.studies)
    return replace(report, studies=studies)


def look_at_all(state: StateFolder, report: TriageReport) -> None:
    """As the worker does, without an engine."""
    with Worklist.open(state) as worklist:
        worklist.reconcile()
        while (lease := worklist.acquire()) is not None:
            row = worklist.study(lease.key)
            assert row is not None
            publish(
                state, worklist, row, report,
                revision=lease.revision, instances=lease.instances,
                is_final=not needs_coarse_look(row),
            )  # fmt: skip
            worklist.release(lease)


def test_killed_at_every_step_it_ends_with_two_results_of_each_study(
    tmp_path: Path, report: TriageReport
) -> None:
    for step in range(1, STEPS):
        state = StateFolder(tmp_path / str(step))
        state.create()
        with Worklist.open(state) as worklist:
            key = arrive(state, worklist, 1)
            worklist.set_waiting(key)
        was_killed = run_killed_at(step, state.path, partial(look_at_all, state, report), "/.new")
        look_at_all(state, report)
        with Worklist.open(state) as worklist:
            row = worklist.study(key)
        assert row is not None and row.state is StudyState.DONE, step
        assert row.result_number == 2 and row.is_final, step
        assert row.urgency is report.urgency, step
        assert result_numbers(state, key) == (1, 2), step
        assert [one.is_final for one in read_records(state, key)] == [False, True], step
        assert read_latest(state, key) is not None
        looked = [one.detail for one in audit.read(state) if one.event == "looked_at"]
        assert sorted(set(looked)) == [f"1 coarse {report.urgency}", f"2 final {report.urgency}"], (
            step
        )
        assert audit.verify(state) > 0
        if not was_killed:
            break
    assert step > 10, "too few steps were found to kill at"
    assert not was_killed
