"""A running node and real senders: what is kept, what is refused, what the worklist says."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from support.clinic_node import QUIET, ClinicNode, association, clinic_node, until
from support.clinic_peers import dcmsend, echoscu, needs, storescu
from support.synthetic_series import CANARY, write_head_ct

from edge_medgemma.runtime.clinic.arrivals.recent import Outcome
from edge_medgemma.runtime.clinic.certificates import issue_sender_certificate, server_files
from edge_medgemma.runtime.clinic.maker import MANUFACTURER
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.records import Doubt, StudyState

needs_dcmtk = needs("storescu", "dcmsend", "echoscu", "dcmcjpls")

SR = "1.2.840.10008.5.1.4.1.1.88.34"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
COMMITMENT = "1.2.840.10008.1.20.1"


def _ct(folder: Path, study: str, slices: int = 12, **changes: object) -> list[Path]:
    """Files in the order of their positions."""
    written = write_head_ct(folder, slices=slices, study=study, **changes).iterdir()
    return sorted(written, key=lambda path: int(path.stem.split("_")[1]))


def _uid(study: str) -> str:
    return f"1.2.3.{study}"


@needs_dcmtk
def test_a_released_study_waits_for_the_engine_without_doubt(
    node: ClinicNode, tmp_path: Path
) -> None:
    done = storescu(node.address, *_ct(tmp_path, "10"), calling="WHOLE")
    assert done.returncode == 0, done.stderr
    assert len(node.received(_uid("10"))) == 12  # at once: the sender was told that they are kept
    row = node.settled(_uid("10"), lambda row: row.state is StudyState.WAITING)
    assert (row.state, row.instances, row.doubts) == (StudyState.WAITING, 12, ())
    assert row.senders == ("WHOLE",)
    until(lambda: bool(node.recent("WHOLE")))
    assert (node.recent("WHOLE")[0].images, node.recent("WHOLE")[0].outcome) == (
        12,
        Outcome.RELEASED,
    )


@needs_dcmtk
def test_a_study_sent_again_changes_nothing(node: ClinicNode, tmp_path: Path) -> None:
    files = _ct(tmp_path, "11")
    storescu(node.address, *files, calling="FIRST")
    before = node.settled(_uid("11"), lambda row: row.state is StudyState.WAITING)
    assert storescu(node.address, *files, calling="AGAIN").returncode == 0
    until(lambda: node.recent("AGAIN")[:1] != () and node.recent("AGAIN")[0].images == 12)
    assert node.row(_uid("11")) == before


@needs_dcmtk
def test_one_image_with_two_contents_is_kept_twice_and_doubted(
    node: ClinicNode, tmp_path: Path
) -> None:
    storescu(node.address, *_ct(tmp_path / "a", "12"), calling="CT")
    other = _ct(tmp_path / "b", "12", lesion=range(5, 7))
    assert storescu(node.address, *other, calling="CT").returncode == 0
    row = node.settled(_uid("12"), lambda row: row.instances == 14)
    assert row.doubts == (Doubt.CONFLICTING_COPIES,)
    assert row.instances == len(node.received(_uid("12"))) == 14


@needs_dcmtk
def test_sixty_then_forty_are_looked_at_twice(node: ClinicNode, tmp_path: Path) -> None:
    files = _ct(tmp_path, "13", 100)
    storescu(node.address, *files[:60], calling="PAUSE")
    first = node.settled(_uid("13"), lambda row: row.state is StudyState.WAITING)
    assert (first.state, first.instances) == (StudyState.WAITING, 60)
    storescu(node.address, *files[60:], calling="PAUSE")
    second = node.settled(_uid("13"), lambda row: row.instances == 100)
    assert (second.state, second.instances) == (StudyState.WAITING, 100)
    assert second.revision > first.revision


@needs_dcmtk
def test_slices_missing_in_the_middle_are_doubted_until_they_come(
    node: ClinicNode, tmp_path: Path
) -> None:
    files = _ct(tmp_path, "14")
    storescu(node.address, *files[:4], *files[6:], calling="GAP")
    row = node.settled(_uid("14"), lambda row: bool(row.doubts))
    assert row.doubts == (Doubt.GAP,)
    storescu(node.address, *files[4:6], calling="GAP")
    # a study that waits may be looked at before its doubts are ruled on again
    row = node.settled(_uid("14"), lambda row: not row.doubts)
    assert (row.instances, row.doubts) == (12, ())


def test_an_association_that_breaks_off_is_kept_and_called_incomplete(
    node: ClinicNode, tmp_path: Path
) -> None:
    files = _ct(tmp_path, "15")
    with association(node, "BROKEN") as opened:
        assert {opened.send_c_store(dcmread(file)).Status for file in files[:8]} == {0}
        opened.abort()
    row = node.settled(_uid("15"), lambda row: row.state is StudyState.WAITING)
    assert (row.state, row.doubts, row.instances) == (StudyState.WAITING, (Doubt.ABORTED,), 8)
    until(lambda: node.recent("BROKEN")[0].outcome is Outcome.ABORTED)
    with association(node, "BROKEN") as opened:
        assert {opened.send_c_store(dcmread(file)).Status for file in files} == {0}
    row = node.settled(_uid("15"), lambda row: not row.doubts)
    assert (row.doubts, row.instances) == ((), 12)


@needs_dcmtk
def test_what_a_killed_sender_delivered_is_kept(node: ClinicNode, tmp_path: Path) -> None:
    files = _ct(tmp_path, "16", 200)
    sender = subprocess.Popen(
        ["storescu", "-aet", "KILLED", "-aec", node.address.ae_title,
         "127.0.0.1", str(node.address.port), *map(str, files)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: len(node.received(_uid("16"))) > 20)
    os.kill(sender.pid, signal.SIGKILL)
    sender.wait()
    row = node.settled(_uid("16"), lambda row: Doubt.ABORTED in row.doubts)
    assert Doubt.ABORTED in row.doubts
    assert 20 < row.instances < 200
    assert row.instances == len(node.received(_uid("16")))
    assert all(dcmread(path).SOPInstanceUID for path in node.received(_uid("16")))


@needs_dcmtk
def test_compressed_images_arrive_as_they_were_sent(node: ClinicNode, tmp_path: Path) -> None:
    (file,) = _ct(tmp_path / "plain", "17", 1)
    compressed = tmp_path / "compressed.dcm"
    subprocess.run(["dcmcjpls", str(file), str(compressed)], check=True)
    done = dcmsend(node.address, compressed, calling="JPEGLS", options=["--decompress-never"])
    assert done.returncode == 0, done.stderr
    (kept,) = node.received(_uid("17"))
    assert dcmread(kept).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.80"
    assert dcmread(kept).PixelData == dcmread(compressed).PixelData


@pytest.mark.parametrize(
    ("abstract_syntax", "transfer_syntax"),
    [
        ("1.2.840.113619.4.26", "1.2.840.10008.1.2.1"),
        ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.113619.5.2"),
        ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.94"),
    ],
    ids=["private class", "private encoding", "pixels elsewhere"],
)
def test_private_objects_and_encodings_are_refused_so_that_the_sender_converts(
    node: ClinicNode, abstract_syntax: str, transfer_syntax: str
) -> None:
    with association(node, "PRIVATE", abstract_syntax, transfer_syntax) as opened:
        assert not opened.is_established
        assert [context.abstract_syntax for context in opened.rejected_contexts] == [
            abstract_syntax
        ]


def test_what_is_no_image_and_our_own_results_never_reach_the_worklist(
    node: ClinicNode, tmp_path: Path
) -> None:
    (report,) = _ct(tmp_path / "sr", "18", 1, SOPClassUID=SR, Manufacturer=MANUFACTURER)
    (picture,) = _ct(
        tmp_path / "sc", "18", 1, SOPClassUID=SECONDARY_CAPTURE, Manufacturer=MANUFACTURER
    )
    for file, kind in ((report, SR), (picture, SECONDARY_CAPTURE)):
        with association(node, "ECHOES", kind) as opened:
            assert opened.send_c_store(dcmread(file)).Status == 0
    until(lambda: sum(one.images for one in node.recent("ECHOES")) == 2)
    assert len(node.spool.aside_files(node.state.study_key(_uid("18")))) == 2
    assert node.row(_uid("18")) is None


@pytest.mark.parametrize(
    ("announced", "status"),
    [
        ({}, 0x0000),
        ({"AffectedSOPClassUID": SECONDARY_CAPTURE}, 0xA900),
        ({"AffectedSOPInstanceUID": "1.2.3.4"}, 0xA900),
        ({"DataSet": BytesIO(b"\xff" * 400)}, 0xC000),
    ],
)
def test_an_object_that_is_not_what_was_announced_is_refused(
    node: ClinicNode, tmp_path: Path, announced: dict[str, object], status: int
) -> None:
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    dataset = dcmread(_ct(tmp_path, "19", 1)[0])
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = dataset.SOPClassUID
    request.AffectedSOPInstanceUID = dataset.SOPInstanceUID
    request.DataSet = BytesIO(encode(dataset, False, True))
    for name, value in announced.items():
        setattr(request, name, value)
    with association(node, "LIAR") as opened:
        opened._reactor_checkpoint.clear()  # else it takes the answer
        until(lambda: opened._is_paused)
        opened.dimse.send_msg(request, 1)
        _, answer = opened.dimse.get_msg(block=True)
        opened._reactor_checkpoint.set()
    assert answer.Status == status


@needs_dcmtk
def test_a_caller_by_another_name_is_refused_and_the_setup_page_told(node: ClinicNode) -> None:
    assert echoscu(node.address, calling="RIGHT")
    assert not echoscu(replace(node.address, ae_title="edgemedgemma"), calling="WRONG")
    until(lambda: bool(node.recent("WRONG")))
    (refused,) = node.recent("WRONG")
    assert (refused.outcome, refused.called_ae_title) == (Outcome.UNKNOWN_CALLED, "edgemedgemma")
    assert any(entry.event == "refused" for entry in audit.read(node.state))


def test_an_archives_report_of_what_it_keeps_is_not_called_an_echo(node: ClinicNode) -> None:
    with association(node, "REPORTER", COMMITMENT):
        pass
    with association(node, "ECHOING", "1.2.840.10008.1.1") as opened:
        assert opened.send_c_echo().Status == 0
    until(lambda: any(one.outcome is Outcome.RELEASED for one in node.recent("ECHOING")))
    assert node.recent("ECHOING")[0].is_echo and node.recent("REPORTER") == ()


def test_a_commitment_to_keep_images_is_never_given(node: ClinicNode) -> None:
    from pynetdicom.sop_class import StorageCommitmentPushModelInstance

    with association(node, "MODALITY", COMMITMENT) as opened:
        if opened.is_established:
            request = Dataset()
            request.TransactionUID = generate_uid()
            status, _ = opened.send_n_action(
                request, 1, COMMITMENT, StorageCommitmentPushModelInstance
            )
            assert status.Status != 0


def _request(context: int, encoding: bytes) -> bytes:
    """An A-ASSOCIATE-RQ with one presentation context (PS3.8 9.3.2); without an encoding, none of it."""

    def item(kind: int, content: bytes) -> bytes:
        return bytes([kind, 0]) + len(content).to_bytes(2, "big") + content

    syntaxes = item(0x30, b"1.2.840.10008.1.1") + (item(0x40, encoding) if encoding else b"")
    titles = b"EDGEMEDGEMMA".ljust(16) + b"SENDER".ljust(16)
    content = b"\0\1\0\0" + titles + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1")
    content += item(0x20, bytes([context, 0, 0, 0]) + syntaxes)
    content += item(0x50, item(0x51, (16384).to_bytes(4, "big")) + item(0x52, b"1.2.3"))
    return b"\x01\0" + len(content).to_bytes(4, "big") + content


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: box\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff" + b"\0" * 100_000,
        b"\x01\x00\x00\x00\x00\x44" + b"\xff" * 68,
        b"\x01\x00\x00\x00\x00\x00",
        b"\x04\x00\x00\x00\x00\x08" + b"\0" * 8,
        b"\x01",
        _request(context=1, encoding=b""),
        _request(context=2, encoding=b"1.2.840.10008.1.2"),
    ],
    ids=[
        "http",
        "4 GB PDU",
        "nonsense",
        "empty request",
        "data without association",
        "a byte",
        "no encoding",
        "even number",
    ],
)
def test_what_is_no_association_ends_nothing(node: ClinicNode, sent: bytes) -> None:
    address = ("127.0.0.1", node.address.port)
    with (
        contextlib.suppress(ConnectionError),
        socket.create_connection(address, timeout=30) as connection,
    ):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):  # closed by the node
            pass
    with association(node, "AFTER", "1.2.840.10008.1.1") as opened:
        assert opened.send_c_echo().Status == 0
    assert "Traceback" not in node.log.read_text()


def test_silent_connections_and_a_tls_staller_keep_nobody_out(node: ClinicNode) -> None:
    sockets = [socket.create_connection(("127.0.0.1", node.address.port)) for _ in range(60)]
    sockets += [socket.create_connection(("127.0.0.1", node.tls_port)) for _ in range(3)]
    try:
        with association(node, "PATIENT", "1.2.840.10008.1.1") as opened:
            assert opened.is_established and opened.send_c_echo().Status == 0
        _echo_over_tls(node)
    finally:
        for one in sockets:
            one.close()


def _echo_over_tls(node: ClinicNode) -> None:
    from pynetdicom import AE

    files = issue_sender_certificate(node.state, "echo")
    context = ssl.create_default_context(cafile=str(files.authority))
    context.check_hostname = False
    context.load_cert_chain(files.certificate, files.key)
    entity = AE("SECURE")
    entity.add_requested_context("1.2.840.10008.1.1")
    opened = entity.associate(
        "127.0.0.1", node.tls_port, ae_title=node.address.ae_title, tls_args=(context, None)
    )
    assert opened.is_established and opened.send_c_echo().Status == 0
    opened.release()


@needs_dcmtk
def test_dcmtk_sends_over_tls_and_nobody_without_a_certificate(
    node: ClinicNode, tmp_path: Path
) -> None:
    files = _ct(tmp_path, "20", 3)
    mine = issue_sender_certificate(node.state, "dcmtk")
    over_tls = replace(node.address, port=node.tls_port)
    trust = ["+cf", str(mine.authority)]
    certified = ["+tls", str(mine.key), str(mine.certificate), *trust]
    done = storescu(over_tls, *files, calling="TLS", options=certified)
    assert done.returncode == 0, done.stderr
    assert len(node.received(_uid("20"))) == 3
    assert storescu(over_tls, *files, calling="ANON", options=["+tla", *trust]).returncode != 0
    assert storescu(over_tls, *files, calling="PLAIN").returncode != 0
    assert node.recent("ANON") == node.recent("PLAIN") == ()
    until(lambda: any(one.outcome is Outcome.TLS_FAILED for one in node.recent("?")))


def test_nothing_of_a_patient_is_outside_the_files(node: ClinicNode, tmp_path: Path) -> None:
    with association(node, "NAMES") as opened:
        for file in _ct(tmp_path, "21", 3):
            opened.send_c_store(dcmread(file))
    node.settled(_uid("21"), lambda row: row.state is StudyState.WAITING)
    until(lambda: bool(node.recent("NAMES")))
    places = [path for path in node.state.path.rglob("*") if path.is_file()]
    images = [path for path in places if node.state.spool in path.parents]
    others = set(places) - set(images) - {p for p in places if node.state.aside in p.parents}
    assert images and others
    words = (CANARY.encode(), b"19010203")
    for path in (*others, node.log):
        with contextlib.suppress(FileNotFoundError):  # a temporary name
            assert not any(word in path.read_bytes() for word in words), path
    assert not any(CANARY in str(path) for path in places)


def test_a_killed_node_loses_nothing_it_had_acknowledged(tmp_path: Path) -> None:
    files = _ct(tmp_path / "ct", "30", 30)
    with clinic_node(tmp_path / "node") as node:
        with association(node, "CT") as opened:
            kept = [file for file in files[:20] if opened.send_c_store(dcmread(file)).Status == 0]
            node.kill()
            until(lambda: not opened.is_established)
        assert len(kept) == 20
        (node.state.incoming / "0123456789abcdef-00.dcm").write_bytes(b"half")
        node.start()
        assert not list(node.state.incoming.glob("*.dcm"))
        row = node.settled(_uid("30"), lambda row: row.state is StudyState.WAITING)
        assert (row.instances, row.doubts) == (20, (Doubt.ABORTED,))
        uids = {dcmread(path).SOPInstanceUID for path in node.received(_uid("30"))}
        assert uids == {dcmread(file).SOPInstanceUID for file in kept}
        assert server_files(node.state).certificate.exists()
        with association(node, "CT") as opened:
            assert {opened.send_c_store(dcmread(file)).Status for file in files} == {0}
        row = node.settled(_uid("30"), lambda row: not row.doubts)
        assert (row.instances, row.doubts) == (30, ())


@pytest.fixture
def small_state(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 20 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_answered_with_a700_until_there_is_space(small_state: Path) -> None:
    big = {"Rows": 512, "Columns": 512, "PixelData": bytes(2 * 512 * 512)}
    files = _ct(small_state.parent / "ct", "40", 40, **big)
    with clinic_node(small_state / "node", "reserve_gb = 0.004\n" + QUIET) as node:
        with association(node, "CT") as opened:
            statuses = [opened.send_c_store(dcmread(file)).Status for file in files]
            assert opened.is_established
        kept = statuses.index(0xA700)
        assert 15 < kept < 35
        assert statuses == [0] * kept + [0xA700] * (40 - kept)
        with association(node, "CT") as opened:
            assert opened.is_rejected
        with association(node, "CT", "1.2.840.10008.1.1") as opened:
            assert opened.send_c_echo().Status == 0
        row = node.settled(_uid("40"), lambda row: row.state is StudyState.WAITING)
        assert row.instances == len(node.received(_uid("40"))) == kept
        assert row.doubts == (Doubt.ABORTED,)
        until(lambda: len(node.recent("CT")) == 3)
        outcomes = [one.outcome for one in node.recent("CT")]
        assert outcomes == [Outcome.RELEASED, Outcome.NO_SPACE, Outcome.NO_ROOM_LEFT]
        _make_room(node, kept - 5)
        with association(node, "CT") as opened:
            assert opened.send_c_store(dcmread(files[-1])).Status == 0


def _make_room(node: ClinicNode, count: int) -> None:
    for path in node.received(_uid("40"))[:count]:
        path.unlink()


@needs("strace", "storescu")
def test_an_image_is_on_the_disk_before_its_sender_is_answered(tmp_path: Path) -> None:
    files = _ct(tmp_path / "ct", "41", 3)
    trace = tmp_path / "trace"
    calls = "trace=fsync,link,rename,sendto,openat"
    with clinic_node(tmp_path / "node", starts=False) as node:
        node.start(["strace", "-f", "-y", "-s", "64", "-e", calls, "-o", str(trace)])
        assert storescu(node.address, *files, calling="CT").returncode == 0
        os.kill(_child(node), signal.SIGTERM)
        until(lambda: node.process is not None and node.process.poll() is not None)
    steps = "".join(filter(None, (_step(line) for line in trace.read_text().splitlines())))
    assert steps.count("named,") == 3
    for answer in steps.split("answer,")[:3]:
        assert answer.endswith("file synced,named,folder synced,"), steps


def _step(line: str) -> str:
    """What one system call does for an image; empty for others."""
    folder = "/state/spool/[0-9a-f]{32}"
    for pattern, step in (
        (r"fsync\(\d+<[^>]*/state/incoming/[^>]*\.dcm>", "file synced,"),
        (rf"link\(.*{folder}/", "named,"),
        (rf"fsync\(\d+<[^>]*{folder}>", "folder synced,"),
        (r"sendto\(.*\"\\4\\0", "answer,"),  # a P-DATA-TF PDU
    ):
        if re.search(pattern, line):
            return step
    return ""


def _child(node: ClinicNode) -> int:
    import psutil

    assert node.process is not None
    (child,) = psutil.Process(node.process.pid).children()
    return child.pid
