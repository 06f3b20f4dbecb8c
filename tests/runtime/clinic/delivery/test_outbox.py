"""Results reach archives that are away, refuse, forget or know less, and a kill loses and doubles nothing."""

import multiprocessing
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage
from support.archive_peer import ALL_CLASSES, ArchivePeer, archive
from support.clinic_node import clinic_node, until
from support.clinic_peers import free_port, needs, running_orthanc
from support.kill_at import kill_at
from support.sample_results import PLANTED, publish, sample_report, write_study

from edge_medgemma.runtime.clinic.delivery.back_off import LONGEST_S
from edge_medgemma.runtime.clinic.delivery.deliverables import build_deliverables
from edge_medgemma.runtime.clinic.delivery.manifest import read_manifest
from edge_medgemma.runtime.clinic.delivery.outbox import ASK_AGAIN_S, Outbox
from edge_medgemma.runtime.clinic.delivery.problems import DeliveryProblem
from edge_medgemma.runtime.clinic.delivery.receipts import read_receipt
from edge_medgemma.runtime.clinic.delivery.status import DestinationStatus, outbox_status
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Peer, ResultKind, read_settings
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist.records import StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist

EVERYTHING = tuple(ResultKind)


def status(state: StateFolder) -> DestinationStatus:
    """Of the archive."""
    return next(one for one in outbox_status(state) if one.name == "archive")


def study_state(state: StateFolder, key: str) -> StudyState:
    with Worklist.open(state) as worklist:
        row = worklist.study(key)
    assert row is not None
    return row.state


def new_outbox(state: StateFolder, settings: ClinicSettings, clock: Any) -> Outbox:
    return Outbox(state, settings, clock, patience_s=30.0, answer_wait_s=0.0)


def confirm(outbox: Outbox, peer: ArchivePeer) -> None:
    """What the node does when the archive calls back."""
    transaction_uid, uids = peer.asked[-1]
    assert outbox.commitment_result(transaction_uid, uids, {})


def test_objects_are_stored_in_order_and_delivered_once_confirmed(sent: Any, clock: Any) -> None:
    with archive() as peer:
        outbox = new_outbox(sent.state, sent.to(peer.peer()), clock)
        outbox.run_once()
        manifest = read_manifest(sent.folder)
        assert peer.uids == [one.sop_instance_uid for one in manifest.objects]
        assert [str(one.Modality) for one in peer.stored] == ["SR", "KO", "OT"]
        assert (status(sent.state).waiting, status(sent.state).unconfirmed) == (1, 1)
        assert study_state(sent.state, sent.key) is StudyState.DONE
        confirm(outbox, peer)
        outbox.run_once()
        assert (status(sent.state).delivered, status(sent.state).waiting) == (1, 0)
        assert study_state(sent.state, sent.key) is StudyState.DELIVERED
        clock.now_s += 10 * LONGEST_S
        outbox.run_once()
        assert len(peer.stored) == 3


def test_an_answer_over_the_same_association_is_taken(sent: Any, clock: Any) -> None:
    with archive() as peer:
        peer.answers_at_once = True
        Outbox(sent.state, sent.to(peer.peer()), clock, patience_s=30.0).run_once()
    assert study_state(sent.state, sent.key) is StudyState.DELIVERED


def test_an_archive_without_commitment_is_believed_and_said_to_be(sent: Any, clock: Any) -> None:
    with archive(has_commitment=False) as peer:
        new_outbox(sent.state, sent.to(peer.peer()), clock).run_once()
    assert status(sent.state).delivered == 1
    assert not status(sent.state).confirms


def test_an_archive_that_is_away_for_a_week_gets_all_within_an_hour(sent: Any, clock: Any) -> None:
    port = free_port()
    away = Peer("archive", "ARCHIVE", "127.0.0.1", port, results=EVERYTHING, commitment=False)
    outbox = new_outbox(sent.state, sent.to(away), clock)
    for _ in range(14):
        outbox.run_once()
        clock.now_s += 12 * LONGEST_S
    assert status(sent.state).problem is DeliveryProblem.UNREACHABLE
    assert "switched on" in status(sent.state).problem_words
    with archive(port) as peer:
        clock.now_s += LONGEST_S
        outbox.run_once()
        assert len(peer.stored) == 3
    assert status(sent.state).problem is None


def test_what_fails_is_tried_ever_later(sent: Any, clock: Any) -> None:
    away = Peer("archive", "ARCHIVE", "127.0.0.1", free_port(), results=EVERYTHING)
    outbox = new_outbox(sent.state, sent.to(away), clock)
    tries = []
    for second in range(0, 1300, 2):
        before = read_receipt(sent.folder, "archive")
        clock.now_s = 1000.0 + second
        outbox.run_once()
        if read_receipt(sent.folder, "archive") != before:
            tries.append(second)
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert gaps[0] <= 6
    assert all(later >= 1.3 * earlier for earlier, later in pairwise(gaps[1:]))
    assert 6 <= len(tries) <= 11


def test_an_archive_that_does_not_know_the_box_says_so(sent: Any, clock: Any) -> None:
    with archive(senders=("OTHER",)) as peer:
        new_outbox(sent.state, sent.to(peer.peer()), clock).run_once()
    assert status(sent.state).problem is DeliveryProblem.REJECTED


def test_an_archive_that_knows_only_the_older_report_gets_that(sent: Any, clock: Any) -> None:
    classes = [one for one in ALL_CLASSES if one != Comprehensive3DSRStorage]
    with archive(classes=classes) as peer:
        outbox = new_outbox(sent.state, sent.to(peer.peer()), clock)
        outbox.run_once()
        confirm(outbox, peer)
    assert peer.stored[0].SOPClassUID == ComprehensiveSRStorage
    assert status(sent.state).delivered == 1


@pytest.mark.parametrize("refusal", [0xA700, 0xC000])
def test_only_what_was_refused_is_sent_again(sent: Any, clock: Any, refusal: int) -> None:
    with archive() as peer:
        peer.statuses = [0x0000, refusal]
        outbox = new_outbox(sent.state, sent.to(peer.peer()), clock)
        outbox.run_once()
        assert len(peer.stored) == 2
        assert status(sent.state).problem is DeliveryProblem.OBJECT_REFUSED
        assert peer.asked == []
        clock.now_s += LONGEST_S
        outbox.run_once()
        assert len(peer.stored) == 3
        assert sorted(peer.asked[0][1]) == sorted(peer.uids)


def test_a_kind_that_is_refused_stops_no_other_result(sent: Any, clock: Any) -> None:
    classes = [one for one in ALL_CLASSES if "Key" not in one.name]
    other = write_study(sent.state, "ct", "2")
    publish(sent.state, other, sample_report("ct", "2"))
    build_deliverables(sent.state, sent.settings, other, 1)
    with archive(classes=classes) as peer:
        outbox = new_outbox(sent.state, sent.to(peer.peer()), clock)
        outbox.run_once()
        assert len(peer.stored) == 4
        assert status(sent.state).problem is DeliveryProblem.KIND_REFUSED
        without = sent.to(peer.peer(results=(ResultKind.SR, ResultKind.SC)))
        outbox = new_outbox(sent.state, without, clock)
        outbox.run_once()
        assert [len(uids) for _, uids in peer.asked] == [2, 2]


def test_an_archive_that_stays_silent_is_asked_again_and_may_answer_late(
    sent: Any, clock: Any
) -> None:
    with archive() as peer:
        outbox = new_outbox(sent.state, sent.to(peer.peer()), clock)
        outbox.run_once()
        outbox.run_once()
        assert len(peer.asked) == 1
        clock.now_s += ASK_AGAIN_S
        outbox.run_once()
        assert len(peer.asked) == 2
        assert peer.asked[0][0] != peer.asked[1][0]
        assert status(sent.state).problem is DeliveryProblem.NOT_CONFIRMED
        transaction_uid, uids = peer.asked[0]
        assert outbox.commitment_result(transaction_uid, uids, {})
    assert status(sent.state).delivered == 1
    assert len(peer.stored) == 3


@pytest.mark.parametrize("part", [0, 1], ids=["silent", "half"])
def test_an_archive_that_never_confirms_all_is_not_asked_without_end(
    sent: Any, clock: Any, part: int
) -> None:
    with archive() as peer:
        outbox = new_outbox(sent.state, sent.to(peer.peer()), clock)
        for count in (1, 2, 3):
            for _ in range(3):
                outbox.run_once()
                transaction_uid, uids = peer.asked[-1]
                if part:
                    assert outbox.commitment_result(transaction_uid, uids[:part], {})
            assert len(peer.asked) == count
            clock.now_s += LONGEST_S
    assert status(sent.state).problem is DeliveryProblem.NOT_CONFIRMED
    assert status(sent.state).delivered == 0


def test_what_an_archive_has_lost_is_sent_again(sent: Any, clock: Any) -> None:
    with archive() as peer:
        outbox = new_outbox(sent.state, sent.to(peer.peer()), clock)
        outbox.run_once()
        transaction_uid, uids = peer.asked[0]
        assert outbox.commitment_result(transaction_uid, uids[1:], {uids[0]: 0x0112})
        assert status(sent.state).delivered == 0
        clock.now_s += LONGEST_S
        outbox.run_once()
        assert peer.uids.count(uids[0]) == 2
        confirm(outbox, peer)
    assert status(sent.state).delivered == 1


def test_a_report_about_a_request_of_someone_else_changes_nothing(sent: Any, clock: Any) -> None:
    with archive() as peer:
        outbox = new_outbox(sent.state, sent.to(peer.peer()), clock)
        outbox.run_once()
        assert not outbox.commitment_result("1.2.3", tuple(peer.uids), {})
        transaction_uid, uids = peer.asked[0]
        assert outbox.commitment_result(transaction_uid, uids[:1], {})
    assert status(sent.state).delivered == 0


def test_only_the_newest_result_leaves(sent: Any, clock: Any) -> None:
    publish(sent.state, sent.key, sample_report("ct", created_at="2026-11-28T21:00:00+00:00"), 2)
    build_deliverables(sent.state, sent.settings, sent.key, 2)
    with archive() as peer:
        new_outbox(sent.state, sent.to(peer.peer(commitment=False)), clock).run_once()
    newer = read_manifest(sent.state.outbox / f"{sent.key}-2")
    assert peer.uids == [one.sop_instance_uid for one in newer.objects]
    assert "PredecessorDocumentsSequence" not in peer.stored[0]


def test_a_newer_result_refers_to_the_one_that_had_begun_to_leave(sent: Any, clock: Any) -> None:
    with archive() as peer:
        new_outbox(sent.state, sent.to(peer.peer(commitment=False)), clock).run_once()
        first = peer.stored[0]
        later = sample_report("ct", created_at="2026-11-28T21:00:00+00:00")
        publish(sent.state, sent.key, later, 2)
        build_deliverables(sent.state, sent.settings, sent.key, 2)
        new_outbox(sent.state, sent.to(peer.peer(commitment=False)), clock).run_once()
    (study,) = peer.stored[3].PredecessorDocumentsSequence
    reference = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert study_state(sent.state, sent.key) is StudyState.DELIVERED


def test_a_result_that_is_replaced_while_another_is_sent_does_not_leave(
    sent: Any, clock: Any
) -> None:
    other = write_study(sent.state, "ct", "2")
    later = sample_report("ct", "2", created_at="2026-11-28T20:40:00+00:00")
    publish(sent.state, other, later)
    build_deliverables(sent.state, sent.settings, other, 1)

    def replace_other() -> None:
        newest = sample_report("ct", "2", created_at="2026-11-28T21:00:00+00:00")
        if not (sent.state.outbox / f"{other}-2").exists():
            publish(sent.state, other, newest, 2)
            build_deliverables(sent.state, sent.settings, other, 2)

    with archive() as peer:
        peer.before_store = replace_other
        new_outbox(sent.state, sent.to(peer.peer(commitment=False)), clock).run_once()
        replaced = read_manifest(sent.state.outbox / f"{other}-1").objects
        assert not {one.sop_instance_uid for one in replaced} & set(peer.uids)
        assert len(peer.stored) == 3


def test_an_altered_object_is_not_sent(sent: Any, clock: Any) -> None:
    path = sent.folder / read_manifest(sent.folder).objects[0].file
    path.write_bytes(path.read_bytes()[:-2] + b"  ")
    with archive() as peer:
        new_outbox(sent.state, sent.to(peer.peer()), clock).run_once()
        assert peer.stored == []
    assert status(sent.state).problem is DeliveryProblem.DAMAGED


def _run_and_be_killed(path: str, settings: ClinicSettings, change: int) -> None:
    kill_at(change)
    Outbox(StateFolder(Path(path)), settings, patience_s=30.0).run_once()


def test_a_kill_at_any_change_of_the_disk_loses_nothing_and_doubles_nothing(sent: Any) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["edge_medgemma.runtime.clinic.delivery.outbox", "pynetdicom"])
    manifest = read_manifest(sent.folder)
    expected = {one.sop_instance_uid for one in manifest.objects}
    with archive() as peer:
        peer.answers_at_once = True
        settings = sent.to(peer.peer())
        for change in range(1, 30):
            process = context.Process(
                target=_run_and_be_killed, args=(str(sent.state.path), settings, change % 3 + 1)
            )
            process.start()
            process.join(60)
            if process.exitcode == 0 and status(sent.state).delivered:
                break
            assert process.exitcode in (0, -signal.SIGKILL)
        assert set(peer.uids) == expected
        assert status(sent.state).delivered == 1
        assert study_state(sent.state, sent.key) is StudyState.DELIVERED
        first = {str(one.SOPInstanceUID): one for one in peer.stored}
        assert all(one == first[str(one.SOPInstanceUID)] for one in peer.stored)


@needs("Orthanc")
def test_the_node_brings_all_kinds_to_orthanc_which_confirms_them_to_the_node(
    tmp_path: Path,
) -> None:
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        port = orthanc.address.port
        table = f"""
            [[peers]]
            name = "archive"
            ae_title = "{orthanc.address.ae_title}"
            host = "127.0.0.1"
            port = {port}
            results = ["sr", "kos", "sc", "pdf"]
        """
        with clinic_node(tmp_path / "box", other_settings=table, starts=False) as node:
            orthanc.add_modality(node.address)
            key = write_study(node.state, "ct")
            orthanc.upload(node.state.spool / key)
            publish(node.state, key, sample_report("ct"))
            build_deliverables(node.state, read_settings(node.settings), key, 1)
            node.start()
            until(lambda: study_state(node.state, key) is StudyState.DELIVERED, seconds=60)
            receipt = read_receipt(node.state.outbox / f"{key}-1", "archive")
            assert receipt is not None
            assert len(receipt.confirmed) == len(receipt.stored) == 4
            (study,) = orthanc.find("Study")
            assert study["PatientMainDicomTags"]["PatientName"] == PLANTED["PatientName"]
            kinds = {one["MainDicomTags"]["Modality"] for one in orthanc.find("Series")}
            assert kinds == {"CT", "SR", "KO", "DOC", "OT"}
            assert "PLANTED" not in node.log.read_text()


def test_nothing_of_a_patient_stands_in_logs_names_manifest_or_receipts(
    sent: Any, clock: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    other = write_study(sent.state, "ct", "3", PatientName="PLANTED^" + "X" * 70)
    publish(sent.state, other, sample_report("ct", "3"))
    build_deliverables(sent.state, sent.settings, other, 1)
    with archive() as peer:
        peer.statuses = [0x0000, 0xC000]
        outbox = new_outbox(sent.state, sent.to(peer.peer()), clock)
        outbox.run_once()
    said = capfd.readouterr()
    texts = [caplog.text, said.out, said.err]
    texts += [str(path.relative_to(sent.state.path)) for path in sent.state.outbox.rglob("*")]
    texts += [path.read_text() for path in sent.state.outbox.rglob("manifest.json")]
    texts += [path.read_text() for path in sent.state.outbox.rglob("receipts/*.json")]
    texts += [sent.state.audit_file.read_text(), str(outbox_status(sent.state))]
    assert not [text for text in texts if "PLANTED" in text or "19010203" in text]
    assert dcmread(sent.folder / "1-sr.dcm").PatientName == PLANTED["PatientName"]
