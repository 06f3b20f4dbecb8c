"""Scans over HTTP: whole, broken off, hostile. Nothing is lost, nothing leaks."""

import logging
import socket
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from dicomweb_client import DICOMwebClient
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from requests import HTTPError, Session
from support.page_server import Caller
from support.synthetic_series import CANARY, write_head_ct

from edge_medgemma.runtime.clinic.arrivals.intake import Intake
from edge_medgemma.runtime.clinic.page.access.tokens import Tokens
from edge_medgemma.runtime.clinic.page.access.users import Users
from edge_medgemma.runtime.clinic.page.api import uploads
from edge_medgemma.runtime.clinic.page.api.incoming_file import IncomingFile
from edge_medgemma.runtime.clinic.page.api.multipart import (
    MultipartError,
    MultipartReader,
    PartBegin,
    PartData,
    PartEnd,
)
from edge_medgemma.runtime.clinic.page.api.uploads import Uploads
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Node
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.records import Doubt, StudyRow, StudyState
from edge_medgemma.runtime.clinic.worklist.store import Worklist

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = write_head_ct(tmp_path_factory.mktemp("scan"), slices=6)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _begin(caller: Caller) -> str:
    reply = caller("POST", "/api/uploads")
    assert reply.status == 201
    return f"/api/uploads/{reply.json['id']}"


def _studies(state: StateFolder) -> tuple[StudyRow, ...]:
    with Worklist.open(state) as worklist:
        return worklist.studies()


def _incoming(state: StateFolder) -> list[str]:
    return [path.name for path in state.incoming.iterdir() if path.suffix != ".lock"]


def test_a_folder_arrives_and_waits_for_the_engine(
    nurse: Caller, state: StateFolder, scan: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    upload = _begin(nurse)
    for number, path in enumerate(scan):
        reply = nurse("PUT", f"{upload}/files/{number}", path.read_bytes())
        assert (reply.status, reply.json["images"]) == (201, 1)
    again = nurse("PUT", f"{upload}/files/0", scan[0].read_bytes())
    assert (again.status, again.json["is_complete"]) == (200, True)
    assert nurse("PUT", f"{upload}/files/{len(scan)}", b"A letter to CANARY").json["refused"] == 1
    assert nurse("PUT", f"{upload}/files/{len(scan) + 1}", scan[1].read_bytes()).status == 201
    result = nurse("POST", f"{upload}/finish").json
    (study,) = _studies(state)
    assert result == {
        "studies": [{"key": study.key, "images": len(scan) + 1}],
        "duplicates": 1,
        "refused": 1,
    }
    assert (study.instances, study.state, study.senders) == (
        len(scan), StudyState.WAITING, ("upload",),
    )  # fmt: skip
    assert not study.doubts and not _incoming(state)
    assert nurse("POST", f"{upload}/finish").status == 404
    _assert_no_patient_is_named(state, caplog)


def _assert_no_patient_is_named(state: StateFolder, caplog: pytest.LogCaptureFixture) -> None:
    """The files themselves hold names; nothing else does."""
    assert CANARY not in caplog.text
    for path in state.path.rglob("*"):
        assert CANARY not in str(path.relative_to(state.path))
        if path.is_file() and state.spool not in path.parents:
            assert CANARY.encode() not in path.read_bytes(), path


def _break_off(caller: Caller, path: str, data: bytes, sent: int) -> None:
    """Begin a PUT of `data` and go away after `sent` bytes, until they were read before the end."""
    head = (
        f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{caller.port}\r\nCookie: {caller.cookie}\r\n"
        f"X-CSRF-Token: {caller.headers['X-CSRF-Token']}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    for attempt in range(8):
        with socket.create_connection(("127.0.0.1", caller.port), timeout=20) as connection:
            connection.sendall(head.encode() + data[:sent])
            time.sleep(0.05 * 2**attempt)
        for _ in range(50):
            if caller("GET", path).json["received_bytes"] == sent:
                return
            time.sleep(0.01)
    raise AssertionError("the bytes did not arrive")


def test_a_broken_upload_goes_on_where_it_stopped(
    nurse: Caller, state: StateFolder, scan: list[Path]
) -> None:
    upload, data = _begin(nurse), scan[0].read_bytes()
    path, half = f"{upload}/files/0", len(data) // 2
    _break_off(nurse, path, data, half)
    assert nurse("POST", f"{upload}/finish").code == "not_whole"
    total = len(data)
    wrong = {"Content-Range": f"bytes {half + 1}-{total - 1}/{total}"}
    assert nurse("PUT", path, data[half + 1 :], wrong).code == "wrong_offset"
    for bad in ("bytes 5-2/9", "bytes */9", "lines 1-2/3", f"bytes {half}-{total}/{total}"):
        reply = nurse("PUT", path, b"x", {"Content-Range": bad})
        assert reply.code == "bad_request", bad
    rest = {"Content-Range": f"bytes {half}-{total - 1}/{total}"}
    reply = nurse("PUT", path, data[half:], rest)
    assert (reply.status, reply.json["received_bytes"]) == (201, total)
    nurse("POST", f"{upload}/finish")
    (kept,) = state.spool.rglob("*.dcm")
    assert kept.read_bytes() == data


def test_an_upload_that_nobody_goes_on_with_is_doubted_and_looked_at(
    nurse: Caller, state: StateFolder, scan: list[Path]
) -> None:
    upload = _begin(nurse)
    nurse("PUT", f"{upload}/files/0", scan[0].read_bytes())
    _break_off(nurse, f"{upload}/files/1", scan[1].read_bytes(), 500)
    assert nurse("DELETE", upload).status == 204
    (study,) = _studies(state)
    assert (study.instances, study.doubts, study.state) == (
        1, (Doubt.ABORTED,), StudyState.WAITING,
    )  # fmt: skip
    assert not _incoming(state)


def test_an_idle_upload_ends_by_itself(state: StateFolder, scan: list[Path]) -> None:
    now = [0.0]
    kept = Uploads(state, ClinicSettings(), lambda: now[0])
    upload = kept.find(kept.begin("nurse"), "nurse")
    assert upload is not None
    upload.begin_file(0, 0)
    upload.append(0, scan[0].read_bytes())
    upload.complete(0)
    kept.end_idle()
    assert not upload.is_ended
    now[0] = uploads.IDLE_S + 1
    kept.end_idle()
    assert upload.is_ended and _studies(state)[0].doubts == (Doubt.ABORTED,)


def test_uploads_belong_to_whoever_began_them(
    nurse: Caller, state: StateFolder, api_port: int, scan: list[Path]
) -> None:
    Users(state).add("another", "a few other words")
    another = Caller(api_port)
    another.log_in("another", "a few other words")
    upload = _begin(nurse)
    assert another("PUT", f"{upload}/files/0", scan[0].read_bytes()).status == 404
    assert another("POST", f"{upload}/finish").status == 404
    for _ in range(uploads.MOST_OF_ONE_VISITOR - 1):
        _begin(nurse)
    assert nurse("POST", "/api/uploads").code == "engine_busy"
    assert another("POST", "/api/uploads").status == 201


@pytest.mark.parametrize(
    "name", ["../../users.json", "%2e%2e%2fusers.json", "-1", "1.dcm", "0x1", "9999999", "²"]
)
def test_no_name_of_a_file_becomes_a_path(nurse: Caller, state: StateFolder, name: str) -> None:
    users = state.users_file.read_bytes()
    upload = _begin(nurse)
    quoted = "".join(c if ord(c) < 128 else f"%{b:02x}" for c in name for b in c.encode()[:1])
    reply = nurse("PUT", f"{upload}/files/{quoted}", b"[]")
    assert reply.status in (400, 404, 405)
    assert state.users_file.read_bytes() == users and not _incoming(state)


def test_a_zip_is_taken_for_what_it_holds(
    nurse: Caller, state: StateFolder, scan: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, path in enumerate(scan):
            archive.write(path, f"../../../CANARY^{number}/../IM{number}")
        archive.writestr("/etc/CANARY.txt", "no image")
    upload = _begin(nurse)
    reply = nurse("PUT", f"{upload}/files/0", packed.getvalue())
    assert (reply.json["images"], reply.json["refused"]) == (len(scan), 1)
    assert nurse("PUT", f"{upload}/files/1", packed.getvalue()[:-200]).json["refused"] >= 1
    nurse("POST", f"{upload}/finish")
    (study,) = _studies(state)
    assert study.instances == len(scan) and not _incoming(state)
    _assert_no_patient_is_named(state, caplog)


class TestFullDisk:
    """With more to keep free than the disk has."""

    @pytest.fixture
    def api_settings(self) -> ClinicSettings:
        return ClinicSettings(node=Node(reserve_gb=10**9))

    def test_nothing_is_taken_and_it_is_said(
        self, nurse: Caller, state: StateFolder, scan: list[Path]
    ) -> None:
        upload = _begin(nurse)
        assert nurse("PUT", f"{upload}/files/0", scan[0].read_bytes()).code == "no_space"
        assert nurse("GET", "/api/status").json["has_room"] is False
        body, kind = _multipart([scan[0].read_bytes()])
        reply = nurse("POST", "/dicom-web/studies", body, {"Content-Type": kind})
        failure = reply.json["0008119A"]["Value"][0]["00081197"]["Value"]
        assert (reply.status, failure) == (409, [0xA700])
        assert not _studies(state) and not _incoming(state)


def _multipart(parts: list[bytes], boundary: str = "x'y") -> tuple[bytes, str]:
    body = b"".join(
        f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + part + b"\r\n"
        for part in parts
    )
    kind = f'multipart/related; type="application/dicom"; boundary="{boundary}"'
    return body + f"--{boundary}--\r\n".encode(), kind


def _client(state: StateFolder, port: int) -> DICOMwebClient:
    session = Session()
    session.headers["Authorization"] = f"Bearer {Tokens(state).add('archive')}"
    return DICOMwebClient(f"http://127.0.0.1:{port}/dicom-web", session=session)


def test_a_dicomweb_client_stores_a_study(
    api_port: int, state: StateFolder, scan: list[Path]
) -> None:
    client, datasets = _client(state, api_port), [dcmread(path) for path in scan]
    response = client.store_instances(datasets, study_instance_uid=datasets[0].StudyInstanceUID)
    stored = {item.ReferencedSOPInstanceUID for item in response.ReferencedSOPSequence}
    assert stored == {one.SOPInstanceUID for one in datasets}
    assert "FailedSOPSequence" not in response
    (study,) = _studies(state)
    assert (study.instances, study.state) == (len(scan), StudyState.WAITING)
    with pytest.raises(HTTPError):
        client.store_instances(datasets[:1], study_instance_uid="1.2.3")
    assert [(line.event, line.who) for line in audit.read(state)] == [("uploaded", "archive")]


def test_stow_keeps_what_was_whole_and_says_what_was_not(
    nurse: Caller, state: StateFolder, scan: list[Path]
) -> None:
    first, second = scan[0].read_bytes(), scan[1].read_bytes()
    body, kind = _multipart([first, b"no image"])
    headers = {"Content-Type": kind}
    reply = nurse("POST", "/dicom-web/studies", body, headers)
    assert reply.status == 202
    assert len(reply.json["00081199"]["Value"]) == len(reply.json["0008119A"]["Value"]) == 1
    assert nurse("POST", "/dicom-web/studies", _multipart([b"x"])[0], headers).status == 409
    broken = _multipart([second, second])[0][: -len(second) // 2]
    assert nurse("POST", "/dicom-web/studies", broken, headers).code == "not_multipart"
    (study,) = _studies(state)
    assert (study.instances, study.doubts) == (2, (Doubt.ABORTED,))
    for wrong in ("application/dicom", "multipart/related", 'multipart/related; boundary="a\tb"'):
        reply = nurse("POST", "/dicom-web/studies", body, {"Content-Type": wrong})
        assert reply.code == "not_multipart"
    assert not _incoming(state)


def test_what_a_failed_write_left_is_overwritten(state: StateFolder) -> None:
    with Intake(state, ClinicSettings(node=Node(reserve_gb=0)), "upload") as intake:
        file = IncomingFile(intake)
        file.append(b"ab")
        file.path.write_bytes(b"ab and what did not fit")
        file.append(b"c")
        assert file.path.read_bytes() == b"abc"
        file.discard()
    assert not _incoming(state)


PARTS = st.lists(st.binary(max_size=60) | st.just(b"\r\n--x'") | st.just(b"--x'y"), max_size=4)


@given(PARTS, st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_parts_are_the_same_in_whatever_pieces_they_come(
    parts: list[bytes], sizes: list[int]
) -> None:
    body = b"preamble " + b"\r\n" + _multipart(parts)[0] + b"epilogue --x'y"
    reader, found, start = MultipartReader("x'y"), [], 0
    while start < len(body):
        size = sizes[start % len(sizes)]
        for event in reader.feed(body[start : start + size]):
            if isinstance(event, PartBegin):
                assert event.content_type == "application/dicom"
                found.append(b"")
            elif isinstance(event, PartData):
                found[-1] += event.data
            else:
                assert isinstance(event, PartEnd)
        start += size
    reader.close()
    assert found == parts


def test_hostile_multipart_is_refused_before_it_fills_memory() -> None:
    for body in (b"--b\r\n" + b"A: " + b"x" * 20_000, b"--b" + b" " * 20_000, b"--bc\r\n\r\n"):
        with pytest.raises(MultipartError):
            list(MultipartReader("b").feed(body))
    reader = MultipartReader("b")
    for _ in range(64):
        list(reader.feed(bytes(np.zeros(2**20, np.uint8))))  # a preamble without an end
    assert len(reader._buffer) < 100
    with pytest.raises(MultipartError, match="broken off"):
        reader.close()
