"""The worker with the demo engine and phantom studies."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.clinic_scans import DEMONSTRATION, spool
from support.clinic_worker import work_until
from support.clinic_worklist import acknowledgement

from edge_medgemma.runtime.clinic.questions.mailbox import Mailbox
from edge_medgemma.runtime.clinic.questions.question import study_question
from edge_medgemma.runtime.clinic.settings import (
    ClinicSettings,
    Node,
    Peer,
    ResultKind,
    WorkerEngine,
)
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker.engine_room import DEMO_ENGINE
from edge_medgemma.runtime.clinic.worker.publishing import read_latest
from edge_medgemma.runtime.clinic.worker_status import (
    WorkerState,
    is_worker_alive,
    read_worker_status,
)
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.records import (
    Doubt,
    FailureReason,
    StudyRow,
    StudyState,
)
from edge_medgemma.runtime.clinic.worklist.results import read_records
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.triage.urgency import Urgency

Files = tuple[Path, ...]

ARCHIVE = Peer("archive", "PACS", "127.0.0.1", 104, results=(ResultKind.SR,))

GIVES_UP = replace(DEMONSTRATION, node=Node(reserve_gb=0, give_up_s=0), peers=(ARCHIVE,))


def rows(worklist: Worklist, *keys: str) -> list[StudyRow]:
    return [row for key in keys if (row := worklist.study(key)) is not None]


def are(worklist: Worklist, state: StudyState, *keys: str) -> bool:
    return all(row.state is state for row in rows(worklist, *keys))


def looks(state: StateFolder) -> list[tuple[str, str]]:
    """Study key and words of every pass, in order."""
    return [(e.study_key, e.detail) for e in audit.read(state) if e.event == "looked_at"]


def problems(state: StateFolder, key: str) -> set[str]:
    report = read_latest(state, key)
    assert report is not None
    return {problem.name for study in report.studies for problem in study.problems}


def test_every_study_is_looked_at_once_before_any_is_looked_at_closely(
    state: StateFolder, worklist: Worklist, bleed: Files, quiet: Files
) -> None:
    first = spool(state, worklist, quiet, "1.2.3.1")
    second = spool(state, worklist, bleed, "1.2.3.2")
    built = work_until(state, DEMONSTRATION, lambda: are(worklist, StudyState.DONE, first, second))
    assert looks(state) == [
        (first, "1 coarse not_assessable"),
        (second, "1 coarse critical"),
        (second, "2 final critical"),
        (first, "2 final routine"),
    ]
    assert built == [(second, 2), (first, 2)]
    numbers = [(one.number, one.is_final, one.instances) for one in read_records(state, second)]
    assert numbers == [(1, False, 34), (2, True, 34)]
    assert [row.key for row in worklist.studies()] == [second, first]
    row = worklist.studies()[0]
    assert row.flagged == ("intracranial_haemorrhage",)
    assert (row.modality, row.body_part, row.is_final) == ("CT", "head", True)
    passes = [len(study.slices) for study in read_latest(state, second).studies]  # type: ignore[union-attr]
    assert passes == [24]
    status = read_worker_status(state)
    assert status is not None and status.state is WorkerState.STOPPED
    assert "demo" in status.engine and status.notice and status.scope == "CT of the head"
    assert is_worker_alive(state)


def test_a_flag_outlives_better_looks_until_it_is_acknowledged(
    state: StateFolder, worklist: Worklist, bleed: Files, quiet: Files
) -> None:
    key = spool(state, worklist, bleed, "1.2.3.1")
    work_until(state, DEMONSTRATION, lambda: are(worklist, StudyState.DONE, key))
    shutil.rmtree(state.spool / key)
    spool(state, worklist, quiet, "1.2.3.1")
    work_until(state, DEMONSTRATION, lambda: are(worklist, StudyState.DONE, key))
    row = rows(worklist, key)[0]
    assert (row.result_number, row.result_revision) == (4, 2)
    assert row.urgency is Urgency.CRITICAL
    assert row.flagged == ("intracranial_haemorrhage",)
    report = read_latest(state, key)
    assert report is not None and report.urgency is Urgency.CRITICAL
    [flag] = report.studies[0].flagged
    assert "at an earlier look" in flag.reason
    assert "flag_not_confirmed" in problems(state, key)
    worklist.acknowledge(acknowledgement(4, key))
    worklist.note_arrivals(key, "1.2.3.1", "CT1", 1)
    worklist.set_waiting(key)
    work_until(state, DEMONSTRATION, lambda: are(worklist, StudyState.DONE, key))
    row = rows(worklist, key)[0]
    assert (row.urgency, row.flagged) == (Urgency.ROUTINE, ())
    assert row.acknowledged_at is not None
    assert "flag_not_confirmed" not in problems(state, key)


def test_more_images_give_a_better_result(
    state: StateFolder, worklist: Worklist, bleed: Files
) -> None:
    key = spool(state, worklist, bleed[:20], "1.2.3.1")
    work_until(state, DEMONSTRATION, lambda: are(worklist, StudyState.DONE, key))
    before = read_latest(state, key)
    spool(state, worklist, bleed[20:], "1.2.3.1")
    work_until(state, DEMONSTRATION, lambda: are(worklist, StudyState.DONE, key))
    after = read_latest(state, key)
    assert before is not None and after is not None
    shapes = [report.studies[0].series.shape[0] for report in (before, after)]  # type: ignore[union-attr]
    assert shapes == [20, 34]
    assert rows(worklist, key)[0].urgency is Urgency.CRITICAL


def test_doubt_is_said_and_only_what_is_sure_or_given_up_is_handed_over(
    state: StateFolder, worklist: Worklist, quiet: Files
) -> None:
    key = spool(state, worklist, quiet, "1.2.3.1")
    worklist.add_doubt(key, Doubt.ABORTED)
    built = work_until(state, DEMONSTRATION, lambda: are(worklist, StudyState.INCOMPLETE, key))
    assert built == []
    assert "may_be_incomplete" in problems(state, key)
    row = rows(worklist, key)[0]
    assert row.urgency is Urgency.NOT_ASSESSABLE
    assert "may_be_incomplete" in row.limitations

    def is_handed_over() -> bool:
        return (state.path / "worker.json").read_text().count("idle") > 0

    handed = work_until(state, GIVES_UP, is_handed_over)
    assert handed == [(key, 2)]
    assert list((state.outbox / f"{key}-2").rglob("*.dcm"))
    worklist.clear_doubt(key, Doubt.ABORTED)
    handed = work_until(
        state, DEMONSTRATION, lambda: rows(worklist, key)[0].urgency is Urgency.ROUTINE
    )
    assert "may_be_incomplete" not in problems(state, key)
    assert rows(worklist, key)[0].state is StudyState.DONE
    assert looks(state)[-1] == (key, "3 final routine")


def test_a_study_that_cannot_be_read_has_failed_and_others_go_on(
    state: StateFolder, worklist: Worklist, quiet: Files
) -> None:
    uid = "1.2.3.1"
    bad = state.study_key(uid)
    (state.spool / bad).mkdir()
    (state.spool / bad / "one").write_bytes(b"no image")
    worklist.note_arrivals(bad, uid, "CT1", 1)
    worklist.set_waiting(bad)
    good = spool(state, worklist, quiet, "1.2.3.2")
    work_until(state, DEMONSTRATION, lambda: len(looks(state)) > 0)
    row = rows(worklist, bad)[0]
    assert (row.state, row.failure) == (StudyState.FAILED, FailureReason.UNREADABLE)
    assert row.urgency is Urgency.NOT_ASSESSABLE
    assert [one.key for one in worklist.studies()] == [bad, good]


def test_a_question_is_answered_between_looks(
    state: StateFolder, worklist: Worklist, bleed: Files
) -> None:
    key = spool(state, worklist, bleed, "1.2.3.1")
    mailbox = Mailbox(state)
    question = mailbox.post(study_question(key, "Is there an intracranial haemorrhage?"))
    answer = state.questions / question / "answer.jsonl"
    work_until(state, DEMONSTRATION, lambda: answer.exists() and not mailbox.pending())
    assert '"end"' in answer.read_text() or '"failed"' in answer.read_text()
    assert [words for _, words in looks(state)] == ["1 coarse critical"]
    mailbox.cancel(question)


@pytest.mark.parametrize("kind", ["none", "demo", "missing", "altered"])
def test_an_engine_that_may_not_be_run_is_said_and_nothing_is_lost(
    state: StateFolder, worklist: Worklist, quiet: Files, tmp_path: Path, kind: str
) -> None:
    engine = tmp_path / "engine"
    if kind in ("demo", "altered"):
        shutil.copytree(DEMO_ENGINE, engine)
    if kind == "altered":
        part = max(engine.rglob("*.onnx*"), key=lambda path: path.stat().st_size)
        data = bytearray(part.read_bytes())
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
    directory = None if kind == "none" else str(engine)
    settings = ClinicSettings(
        site=replace(DEMONSTRATION.site, demonstration=kind == "altered"),
        engine=WorkerEngine(directory=directory),
    )
    words = {
        "none": "No engine is set up",
        "demo": "knows nothing of patients",
        "missing": str(engine),
        "altered": "engine",
    }
    key = spool(state, worklist, quiet[:1], "1.2.3.1")
    seen: list[str] = []

    def is_refused() -> bool:
        status = read_worker_status(state)
        if status is not None and status.state is WorkerState.REFUSED:
            seen.append(status.problem)
        return bool(seen)

    work_until_refused(state, settings, is_refused)
    assert words[kind] in seen[0]
    assert are(worklist, StudyState.WAITING, key)


def work_until_refused(state: StateFolder, settings: ClinicSettings, is_refused) -> None:
    from edge_medgemma.runtime.clinic.worker import worker

    real = worker.fingerprint

    def fingerprint(settings: ClinicSettings):
        if is_refused():
            raise worker.StopAsked
        return real(settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "fingerprint", fingerprint)
        work_until(state, settings, lambda: False)
