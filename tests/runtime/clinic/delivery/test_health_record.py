"""Bundle and message hold against other people's validators, and reach systems that answer, fail or hang."""

import http.server
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.clinic_peers import free_port, needs
from support.sample_results import publish, sample_report, write_study

from edge_medgemma.runtime.clinic.delivery import health_record
from edge_medgemma.runtime.clinic.delivery.content import tell
from edge_medgemma.runtime.clinic.delivery.deliverables import build_deliverables
from edge_medgemma.runtime.clinic.delivery.fhir_checks import ABSENT, check_bundle
from edge_medgemma.runtime.clinic.delivery.oru import observation_message
from edge_medgemma.runtime.clinic.delivery.outbox import Outbox
from edge_medgemma.runtime.clinic.delivery.problems import (
    DeliveryProblem,
    DestinationError,
    ResultRefusedError,
)
from edge_medgemma.runtime.clinic.delivery.source import read_source
from edge_medgemma.runtime.clinic.delivery.status import outbox_status
from edge_medgemma.runtime.clinic.settings import HealthRecord
from edge_medgemma.runtime.errors import DeliveryError

NODE_VALIDATOR = Path(__file__).resolve().parents[3] / "support" / "validate_fhir.mjs"


@pytest.fixture
def bundle(built_state: Any) -> dict[str, Any]:
    """A copy, to be spoilt."""
    found: dict[str, Any] = json.loads((built_state.folder / "bundle-record.json").read_bytes())
    return found


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def test_the_bundle_has_what_was_flagged_and_nothing_else(bundle: dict[str, Any]) -> None:
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert kinds == [
        "Patient", "Organization", "Device", "ImagingStudy", "Observation", "DiagnosticReport",
        "Communication",
    ]  # fmt: skip
    (observation,) = resources(bundle, "Observation")
    assert observation["code"]["coding"][0]["code"] == "1386000"
    assert observation["status"] == "preliminary"
    text = json.dumps(bundle)
    assert ABSENT not in text
    assert "7.12" not in json.dumps(observation)
    (report,) = resources(bundle, "DiagnosticReport")
    assert "which is not a normal report: Mass effect" in report["conclusion"]
    assert {one["contentType"] for one in report["presentedForm"]} == {
        "text/html",
        "application/pdf",
    }


def test_two_further_validators_have_nothing_against_the_bundle(bundle: dict[str, Any]) -> None:
    import fhirkit
    from pyrofile_validator import Validator

    assert fhirkit.validate(json.dumps(bundle)) == []
    assert Validator().validate_resource(bundle).issues == []
    resources(bundle, "Observation")[0].update(status="draft", unknown=1)
    assert fhirkit.validate(json.dumps(bundle))
    assert Validator().validate_resource(bundle).issues


@needs("node")
def test_the_validator_of_npm_has_nothing_against_the_bundle(built_state: Any) -> None:
    found = subprocess.run(
        ["node", NODE_VALIDATOR, built_state.folder / "bundle-record.json"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if found.returncode == 77:
        pytest.skip("npm's package 'fhir' is not installed beside node")
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("Observation", "dataAbsentReason", {"text": "unknown"}),
        ("Observation", "status", "draft"),
        ("DiagnosticReport", "status", "final"),
        ("Observation", "device", {"reference": "urn:uuid:nowhere"}),
        ("Observation", "valueCodeableConcept", {"coding": [{"code": ABSENT}]}),
        ("Communication", "status", "done"),
        ("Patient", "gender", "F"),
    ],
)
def test_our_own_checks_find_what_the_library_misses(
    bundle: dict[str, Any], kind: str, field: str, value: Any
) -> None:
    check_bundle(bundle)
    resources(bundle, kind)[0][field] = value
    with pytest.raises(DeliveryError, match=kind):
        check_bundle(bundle)


def test_a_resource_that_would_be_made_twice_is_refused(bundle: dict[str, Any]) -> None:
    del bundle["entry"][4]["request"]["ifNoneExist"]
    with pytest.raises(DeliveryError, match="twice"):
        check_bundle(bundle)


def test_the_message_is_read_again_as_it_was_meant(built_state: Any) -> None:
    from hl7apy.parser import parse_message

    message = parse_message(
        (built_state.folder / "oru.hl7").read_bytes().decode(), find_groups=True
    )
    assert message.validate()
    result = message.oru_r01_patient_result
    assert result.oru_r01_patient.pid.pid_3.pid_3_1.value == "PLANTED-ID"
    observations = [group.obx for group in result.oru_r01_order_observation.oru_r01_observation]
    assert [one.obx_2.value for one in observations] == ["CWE", "TX", "HD"]
    assert {one.obx_11.value for one in observations} == {"P"}
    assert observations[0].obx_3.value == "1386000^Intracranial hemorrhage^SCT"
    assert observations[0].obx_8.value == "AA"
    assert "not a normal report" in observations[1].obx_5.value
    assert "1.2.3.4.1" in observations[2].obx_5.value


def test_delimiters_in_a_name_are_escaped(sent: Any) -> None:
    planted = {"PatientName": "A|B^C&D~E\\F", "PatientID": "x^1\\2"}
    key = write_study(sent.state, "ct", "8", **planted)
    source = read_source(sent.state.spool / key, "1.2.3.4.8", set())
    told = tell(sample_report("ct", "8"), 1, None)
    text = observation_message(told, source, report_uid="2.25.1", site_name="").decode()
    fields = text.split("\r")[1].split("|")
    assert fields[5] == r"A\F\B^C\T\D\R\E\E\F"
    assert fields[3] == r"x\S\1\E\2"


@pytest.mark.parametrize("name", ["A|B^C&D~E\\F", "हरि^शर्मा", "Yamada^Tarou=山田^太郎", ""])
def test_names_cannot_break_the_message(sent: Any, name: str) -> None:
    from hl7apy.parser import parse_message

    key = write_study(sent.state, "ct", "9", PatientName=name, SpecificCharacterSet="ISO_IR 192")
    source = read_source(sent.state.spool / key, "1.2.3.4.9", set())
    told = tell(sample_report("ct", "9"), 1, None)
    text = observation_message(told, source, report_uid="2.25.1", site_name="A|B\rPID|").decode()
    assert [line[:3] for line in text.rstrip("\r").split("\r")] == [
        "MSH", "PID", "OBR", "OBX", "OBX", "OBX",
    ]  # fmt: skip
    assert parse_message(text, find_groups=True).validate()


@contextmanager
def fhir_server(
    status: int, body: bytes = b"", hang: threading.Event | None = None
) -> Iterator[Any]:
    """A server that answers every POST so; its `bodies` are what it got."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            server.bodies.append(self.rfile.read(length))  # type: ignore[attr-defined]
            if hang is not None:
                hang.wait(30)
                return
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.bodies = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        if hang is not None:
            hang.set()
        server.shutdown()
        server.server_close()


def deliver(sent: Any, clock: Any, **record: Any) -> Outbox:
    entry = HealthRecord("record", **record)
    outbox = Outbox(sent.state, sent.to(records=(entry,)), clock, patience_s=30.0)
    outbox.run_once()
    return outbox


def state_of(sent: Any) -> tuple[int, DeliveryProblem | None]:
    (one,) = (one for one in outbox_status(sent.state) if one.name == "record")
    return one.delivered, one.problem


def url_of(server: Any) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/fhir"


def wait_until(holds: Callable[[], bool]) -> None:
    """Until it holds, or a minute has passed."""
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it does not hold after a minute")


def test_a_fhir_server_gets_the_bundle_once(sent: Any, clock: Any) -> None:
    with fhir_server(201) as server:
        outbox = deliver(sent, clock, fhir_url=url_of(server))
        clock.now_s += 10_000
        outbox.run_once()
        assert [json.loads(body)["type"] for body in server.bodies] == ["transaction"]
    assert state_of(sent) == (1, None)


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (500, b"", DeliveryProblem.SERVER_ERROR),
        (422, b"", DeliveryProblem.MESSAGE_REFUSED),
        (302, b"", DeliveryProblem.MESSAGE_REFUSED),
        (200, b'{"entry": [{"response": {"status": "412"}}]}', DeliveryProblem.MESSAGE_REFUSED),
    ],
)
def test_a_fhir_server_that_fails_is_tried_again(
    sent: Any, clock: Any, status: int, body: bytes, problem: DeliveryProblem
) -> None:
    with fhir_server(status, body) as server:
        deliver(sent, clock, fhir_url=url_of(server))
        assert state_of(sent) == (0, problem)
    with fhir_server(200, b'{"entry": [{"response": {"status": "201 Created"}}]}') as server:
        deliver(sent, clock, fhir_url=url_of(server))
    assert state_of(sent) == (1, None)


def test_a_server_that_hangs_holds_up_no_other(sent: Any, clock: Any, tmp_path: Path) -> None:
    records = (
        HealthRecord("record", fhir_url="http://127.0.0.1:1"),
        HealthRecord("folder", folder=str(tmp_path)),
    )
    key = write_study(sent.state, "ct", "5")
    publish(sent.state, key, sample_report("ct", "5"))
    settings = replace(sent.settings, health_records=records)
    build_deliverables(sent.state, settings, key, 1)
    with fhir_server(200, hang=threading.Event()) as server:
        hanging = (replace(records[0], fhir_url=url_of(server)), records[1])
        settings = replace(settings, health_records=hanging)
        outbox = Outbox(sent.state, settings, clock, patience_s=0.1, record_answer_s=1.0)
        outbox.run_once()
        wait_until(lambda: (tmp_path / f"{key}-1" / "oru.hl7").exists())
        wait_until(lambda: state_of(sent)[1] is not None)
        outbox.close()
    assert state_of(sent)[1] is DeliveryProblem.NO_ANSWER


def test_a_folder_that_is_not_mounted_is_not_made(sent: Any, clock: Any, tmp_path: Path) -> None:
    deliver(sent, clock, folder=str(tmp_path / "share"))
    assert not (tmp_path / "share").exists()
    assert state_of(sent) == (0, DeliveryProblem.FOLDER)


@contextmanager
def mllp_peer(code: str | None) -> Iterator[tuple[int, list[bytes]]]:
    """A system that acknowledges by `code`, or stays silent."""
    got: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while not data.endswith(b"\x1c\r"):
                    data += connection.recv(65536)
                got.append(data[1:-2])
                if code is None:
                    done.wait(30)
                    continue
                control_id = data.split(b"|")[9]
                answer = b"MSH|^~\\&|||||||ACK|1|P|2.5.1\rMSA|" + code.encode() + b"|" + control_id
                connection.sendall(b"\x0b" + answer + b"\r\x1c\r")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], got
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_message_is_delivered_when_it_is_accepted(sent: Any, clock: Any) -> None:
    with mllp_peer("AA") as (port, got):
        deliver(sent, clock, hl7_host="127.0.0.1", hl7_port=port)
    assert state_of(sent) == (1, None)
    assert got == [(sent.folder / "oru.hl7").read_bytes()]


def test_a_message_that_is_refused_is_sent_again_under_the_same_number(
    sent: Any, clock: Any
) -> None:
    with mllp_peer("AE") as (port, got):
        outbox = deliver(sent, clock, hl7_host="127.0.0.1", hl7_port=port)
        assert state_of(sent) == (0, DeliveryProblem.MESSAGE_REFUSED)
        clock.now_s += 10_000
        outbox.run_once()
    assert len(got) == 2
    assert got[0] == got[1]


@pytest.mark.parametrize("answer", [b"", b"\x0bMSA|AA|OTHER\r\x1c\r", b"\x0bnothing\x1c\r"])
def test_an_answer_to_something_else_is_none(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(DestinationError):
            health_record.send_message(
                "127.0.0.1", listener.getsockname()[1], b"MSH|^~\\&|||||||ORU|MINE|P\r", 2.0
            )


def test_silence_is_no_answer() -> None:
    with mllp_peer(None) as (port, _), pytest.raises(DestinationError) as error:
        health_record.send_message("127.0.0.1", port, b"MSH|^~\\&|||||||ORU|MINE|P\r", 0.3)
    assert error.value.problem is DeliveryProblem.NO_ANSWER


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(DestinationError) as error:
        health_record.send_message("127.0.0.1", free_port(), b"MSH|\r", 1.0)
    assert error.value.problem is DeliveryProblem.UNREACHABLE
    with pytest.raises(DestinationError):
        health_record.post_bundle(f"http://127.0.0.1:{free_port()}", b"{}", 1.0)


def test_a_refusal_is_told_apart_from_a_failure() -> None:
    with mllp_peer("AR") as (port, _), pytest.raises(ResultRefusedError):
        health_record.send_message("127.0.0.1", port, b"MSH|^~\\&|||||||ORU|MINE|P\r", 2.0)
