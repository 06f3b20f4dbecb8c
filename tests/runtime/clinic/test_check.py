"""Each check finds what it is there for, and the whole goes on where one of them cannot."""

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.clinic.certificates import (
    ensure_server_certificate,
    issue_sender_certificate,
)
from edge_medgemma.runtime.clinic.checks import engine, machine
from edge_medgemma.runtime.clinic.checks.check import check_clinic
from edge_medgemma.runtime.clinic.checks.engine import check_engine, check_languages, check_printing
from edge_medgemma.runtime.clinic.checks.keeping import (
    check_audit,
    check_certificates,
    check_database,
)
from edge_medgemma.runtime.clinic.checks.line import CheckLine, CheckStatus
from edge_medgemma.runtime.clinic.checks.machine import (
    check_clock,
    check_disk,
    check_ports,
    check_processes,
)
from edge_medgemma.runtime.clinic.checks.network import check_own_node, check_peers
from edge_medgemma.runtime.clinic.heartbeat import beat
from edge_medgemma.runtime.clinic.instance import only_instance
from edge_medgemma.runtime.clinic.settings import (
    ClinicSettings,
    Node,
    Page,
    Peer,
    ResultKind,
    Site,
    WorkerEngine,
)
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker_status import (
    WorkerState,
    WorkerStatus,
    write_worker_status,
)
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.errors import DependencyError

OK, WARN, FAIL = CheckStatus.OK, CheckStatus.WARN, CheckStatus.FAIL
DEMO = Path(engine.__file__).parents[2] / "engines" / "demo"


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def statuses(lines: Iterator[CheckLine] | tuple[CheckLine, ...]) -> dict[str, CheckStatus]:
    return {line.name: line.status for line in lines}


def test_space_is_measured_against_the_reserve(state) -> None:
    assert check_disk(state, ClinicSettings(node=Node(reserve_gb=0))).status in (OK, WARN)
    full = check_disk(state, ClinicSettings(node=Node(reserve_gb=1e6)))
    assert full.status is FAIL and "no scans are received" in full.finding


@pytest.mark.parametrize(
    ("now", "status"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), FAIL),
        (datetime(2026, 11, 29, tzinfo=UTC), OK),
        (datetime(2040, 1, 1, tzinfo=UTC), WARN),
    ],
)
def test_a_clock_that_cannot_be_right_is_named(state, now: datetime, status: CheckStatus) -> None:
    assert check_clock(state, now).status is status


def test_a_clock_that_jumped_back_is_named(state) -> None:
    audit.append(state, "received", "CT1")
    assert check_clock(state).status is OK
    line = check_clock(state, datetime.now(UTC) - timedelta(hours=1))
    if line.status is not FAIL:  # an hour ago was before the program's own date
        assert line.status is WARN and "earlier than the last entry" in line.finding


def test_processes_are_known_by_their_beats(state, monkeypatch) -> None:
    assert statuses(check_processes(state)) == {"clinic": FAIL}
    with only_instance(state):
        beat(state, "node")
        beat(state, "page")
        assert statuses(check_processes(state)) == {"node": OK, "worker": FAIL, "page": OK}
        beat(state, "worker")
        write_worker_status(state, WorkerStatus(WorkerState.REFUSED, problem="No engine."))
        assert statuses(check_processes(state))["worker_problem"] is FAIL
        write_worker_status(state, WorkerStatus(WorkerState.IDLE))
        monkeypatch.setattr(machine, "seconds_since_beat", lambda *_: 100.0)
        assert statuses(check_processes(state)) == {"node": WARN, "worker": OK, "page": WARN}


def test_the_program_that_has_a_port_is_named(state) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = ClinicSettings(node=Node(port=port), page=Page(port=free_port()))
        lines = {line.name: line for line in check_ports(state, settings)}
    assert lines["port_page"].status is OK
    assert lines["port_dicom"].status is FAIL
    assert "python" in lines["port_dicom"].finding
    same = ClinicSettings(node=Node(port=8081), page=Page(port=8081))
    assert "set twice" in [line.finding for line in check_ports(state, same)][-1]


def test_a_damaged_worklist_and_an_altered_audit_are_named(state) -> None:
    assert check_database(state).status is WARN
    Worklist.open(state).close()
    assert check_database(state) == CheckLine(
        "database", OK, "the worklist is whole and holds 0 studies", ""
    )
    state.database.write_bytes(state.database.read_bytes()[:2000])
    assert check_database(state).status is FAIL
    audit.append(state, "received", "CT1")
    audit.append(state, "looked_at", "box")
    assert check_audit(state).finding == "2 lines, none altered"
    state.audit_file.write_text(state.audit_file.read_text().replace("CT1", "CT2"))
    line = check_audit(state)
    assert line.status is FAIL and "line 2" in line.finding


def test_the_database_is_not_changed_by_being_checked(state) -> None:
    Worklist.open(state).close()
    before = state.database.read_bytes()
    check_database(state)
    assert state.database.read_bytes() == before
    with sqlite3.connect(state.database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_certificates_not_yet_valid_ending_and_for_other_addresses(state) -> None:
    encrypted = ClinicSettings(node=Node(tls_port=2762))
    assert statuses(check_certificates(state, encrypted, is_lan=False)) == {"certificate": FAIL}
    assert statuses(check_certificates(state, ClinicSettings(), is_lan=False)) == {
        "certificate": OK
    }
    ensure_server_certificate(state, ["box.local"])
    issue_sender_certificate(state, "CT1")
    found = {"certificate_authority": OK, "certificate": OK, "certificate_CT1": OK}
    names = {"certificate_names": WARN} if machine_has_network() else {}
    assert statuses(check_certificates(state, encrypted, is_lan=True)) == found | names
    past = datetime(2019, 1, 1, tzinfo=UTC)
    early = statuses(check_certificates(state, encrypted, is_lan=True, now=past))
    assert {early[name] for name in found} == {FAIL}
    later = datetime.now(UTC) + timedelta(days=770)
    ending = statuses(check_certificates(state, encrypted, is_lan=True, now=later))
    assert ending["certificate"] is WARN and ending["certificate_CT1"] is OK


def machine_has_network() -> bool:
    from edge_medgemma.runtime.clinic.addresses import machine_addresses

    return bool(machine_addresses())


def test_an_engine_is_there_real_and_said_what_it_is_for(tiny_engine_directory, tmp_path) -> None:
    assert check_engine(ClinicSettings()).status is FAIL
    demonstration = Site(demonstration=True)
    assert check_engine(ClinicSettings(site=demonstration)).status is WARN

    def of(directory: Path, site: Site = demonstration) -> CheckLine:
        return check_engine(
            ClinicSettings(site=site, engine=WorkerEngine(directory=str(directory)))
        )

    assert of(tmp_path / "nowhere").status is FAIL
    assert of(DEMO, Site()).status is FAIL
    assert of(DEMO).status is WARN
    assert of(tiny_engine_directory).status in (OK, WARN)


def test_what_languages_and_printing_lack_is_named(monkeypatch) -> None:
    lacking = ClinicSettings(site=Site(language="xx"))
    assert statuses(check_languages(lacking))["language"] is FAIL
    monkeypatch.setattr(engine, "languages", lambda: ("en", "ar"))
    monkeypatch.setattr(engine, "check_pdf", lambda: None)
    monkeypatch.setattr(engine, "_has_font", lambda tag: False)
    assert statuses(check_printing(ClinicSettings())) == {"pdf": OK, "font_ar": WARN}

    def missing() -> None:
        raise DependencyError("a PDF needs WeasyPrint")

    monkeypatch.setattr(engine, "check_pdf", missing)
    assert statuses(check_printing(ClinicSettings())) == {"pdf": WARN}
    sends = Peer("archive", "PACS", "127.0.0.1", 104, results=(ResultKind.PDF,))
    assert statuses(check_printing(ClinicSettings(peers=(sends,)))) == {"pdf": FAIL}


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Iterator[tuple[StateFolder, ClinicSettings]]:
    """A node of a box that lets one scanner in, as a process."""
    folder = tmp_path_factory.mktemp("node")
    port, tls_port = free_port(), free_port()
    file = folder / "clinic.toml"
    file.write_text(f'[node]\nport = {port}\ntls_port = {tls_port}\nsenders = ["CT1"]\n')
    command = [
        "-m",
        "edge_medgemma",
        "clinic",
        "node",
        "--state",
        folder / "state",
        "--settings",
        file,
    ]
    process = subprocess.Popen([sys.executable, *map(str, command)])
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", tls_port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        settings = ClinicSettings(node=Node(port=port, tls_port=tls_port, senders=("CT1",)))
        yield StateFolder(folder / "state"), settings
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.command("clinic node")
def test_the_own_node_answers_as_to_a_scanner_plain_and_encrypted(node) -> None:
    state, settings = node
    assert statuses(check_own_node(state, settings)) == {"echo": OK, "echo_tls": OK}
    closed = replace(settings, node=replace(settings.node, port=free_port()))
    assert statuses(check_own_node(state, closed))["echo"] is FAIL


def test_peers_are_echoed_and_asked_to_call_back(node, tmp_path) -> None:
    state, settings = node
    us, port = settings.node.ae_title, settings.node.port
    peers = (
        Peer("there", us, "127.0.0.1", port),
        Peer("wrong_title", "OTHER", "127.0.0.1", port),
        Peer("away", "PACS", "127.0.0.1", free_port()),
    )
    caller = ClinicSettings(node=Node(ae_title="CT1"), peers=peers)
    lines = {line.name: line for line in check_peers(state, caller, is_lan=False)}
    assert lines["peer_there"].status is OK
    assert lines["peer_wrong_title"].status is FAIL
    assert "it is not called 'OTHER'" in lines["peer_wrong_title"].finding
    assert lines["peer_away"].status is FAIL and "is away" in lines["peer_away"].finding
    back = lines["peer_away_back"]
    assert back.status is WARN and "port 11112" in back.advice

    called = Peer("ct", "CT1", "127.0.0.1", port)
    end = time.monotonic() + 30
    while time.monotonic() < end:  # the node writes its list every half second
        (_, line) = check_peers(state, ClinicSettings(peers=(called,)), is_lan=False)
        if line.status is OK:
            break
        time.sleep(0.2)
    assert line.status is OK and "called this box last at" in line.finding


def test_one_check_that_cannot_be_made_is_a_line_of_its_own(state) -> None:
    state.certificates.joinpath("authority.pem").write_text("cut sh")
    lines = {line.name: line for line in check_clinic(state, ClinicSettings(), is_lan=True)}
    assert lines["certificates"].status is FAIL
    assert "could not be checked" in lines["certificates"].finding
    assert lines["audit"].status is OK


@pytest.mark.command("clinic check")
def test_the_command_says_what_to_do_and_fails_where_something_does(state) -> None:
    command = [sys.executable, "-m", "edge_medgemma", "clinic", "--state", state.path, "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "fail the box does not run\n     -> start it: " in done.stdout
    assert done.stderr == ""
    listed = json.loads(
        CliRunner().invoke(cli, ["clinic", "--state", str(state.path), "check", "--json"]).output
    )
    assert {"name", "status", "finding", "advice"} == set(listed[0])
