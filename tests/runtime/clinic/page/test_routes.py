"""The worklist through the API: read, acknowledged, asked about, with a real engine behind it."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.answering_worker import answering
from support.clinic_scans import DEMONSTRATION, phantom
from support.page_server import USER, Caller, add_user, serving

from edge_medgemma.runtime.clinic.page.access import users
from edge_medgemma.runtime.clinic.page.api import question_routes
from edge_medgemma.runtime.clinic.page.api_routes import routes
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worker.engine_room import DEMO_ENGINE
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.results import ResultRecord
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.reporting.report_folder import write_report_folder
from edge_medgemma.runtime.triage.triage_scan import triage_scan
from edge_medgemma.runtime.triage.urgency import Urgency

UID = "1.2.826.0.1.3680043.8.498.1"
BLEED = "Does PLANTED have a haemorrhage?"


@pytest.fixture(scope="module")
def demo_engine() -> Iterator[Engine]:
    with Engine.open(DEMO_ENGINE, threads=2) as engine:
        yield engine


@pytest.fixture(scope="module")
def box(demo_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> StateFolder:
    """A box with one study that was looked at, and one user."""
    state = StateFolder(tmp_path_factory.mktemp("clinic") / "state")
    state.create()
    key = state.study_key(UID)
    folder = state.spool / key
    folder.mkdir()
    files = phantom(tmp_path_factory.mktemp("phantom"), has_bleed=True)
    for number, path in enumerate(files):
        (folder / f"{number}.dcm").write_bytes(path.read_bytes())
    write_report_folder(triage_scan(demo_engine, folder), state.results / key / "1")
    with Worklist.open(state) as worklist:
        worklist.note_arrivals(key, UID, "CT1", len(files))
        worklist.set_waiting(key)
        lease = worklist.acquire()
        assert lease is not None
        result = ResultRecord(
            study_uid=UID,
            number=1,
            revision=1,
            instances=len(files),
            urgency=Urgency.CRITICAL,
            flagged=("intracranial_haemorrhage",),
            limitations=(),
            modality="CT",
            body_part="head",
            is_final=True,
            doubts=(),
            created_at=audit.utc_now(),
        )
        worklist.publish_record(key, result)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "_COST", 2**8)  # as for every test of this folder
        add_user(state)
    return state


@pytest.fixture
def caller(box: StateFolder) -> Iterator[Caller]:
    with serving(box, list(routes(box, DEMONSTRATION)), DEMONSTRATION) as port:
        found = Caller(port)
        assert found.log_in().status == 200
        yield found


def _study(box: StateFolder) -> str:
    return f"/api/studies/{box.study_key(UID)}"


def test_the_worklist_and_its_results_are_read(caller: Caller, box: StateFolder) -> None:
    found = caller("GET", "/api/studies").json
    (study,) = found["studies"]
    assert (study["urgency"], study["flagged"]) == ("critical", ["intracranial_haemorrhage"])
    assert caller("GET", "/api/studies").json["version"] == found["version"]
    detail = caller("GET", _study(box)).json
    assert (detail["study"], detail["results"]) == (study, [1])
    document = caller("GET", f"{_study(box)}/results/latest").json
    assert document == caller("GET", f"{_study(box)}/results/1").json
    assert document["studies"][0]["findings"]
    picture = caller("GET", f"{_study(box)}/results/1/key_images/001.png")
    assert picture.body.startswith(b"\x89PNG") and picture.headers["cache-control"] == "no-store"
    for path in (
        "results/1/key_images/999.png",
        "results/1/key_images/..%2ftriage.json",
        "results/2",
        "results/..%2f1",
        "results/-1",
        "results/1.0",
    ):
        assert caller("GET", f"{_study(box)}/{path}").status == 404
    for key in ("0" * 32, "..%2f..%2fusers.json", "x"):
        assert caller("GET", f"/api/studies/{key}").status == 404
    viewed = [line for line in audit.read(box) if line.event == "viewed"]
    assert [(line.who, line.study_key) for line in viewed] == [(USER, box.study_key(UID))]


def test_an_answer_streams_to_a_browser_and_goes_on_after_a_break(
    caller: Caller, box: StateFolder, demo_engine: Engine
) -> None:
    with answering(demo_engine, box):
        asked = caller("POST", f"{_study(box)}/questions", {"text": BLEED})
        assert asked.status == 202
        first = _events(caller, asked.json["events"], count=3)
        rest = _events(caller, asked.json["events"], last=first[-1][0])
    kinds = [kind for _, kind, _ in (*first, *rest)]
    assert kinds[0] == "notice" and "progress" in kinds and kinds[-1] == "end"
    assert [number for number, *_ in (*first, *rest)] == list(range(1, len(kinds) + 1))
    assert rest[-1][2]["reason"] in ("stop", "tokens_spent", "repetition")
    assert caller("GET", asked.json["events"]).code == "unknown_question"
    assert [(line.who, line.detail) for line in audit.read(box) if line.event == "asked"] == [
        (USER, "")
    ]
    _assert_no_question_is_kept(box)


def test_a_question_out_of_scope_fails_in_plain_words(
    caller: Caller, box: StateFolder, demo_engine: Engine
) -> None:
    with answering(demo_engine, box):
        asked = caller("POST", f"{_study(box)}/questions", {"text": "Is PLANTED's liver well?"})
        (*_, last) = _events(caller, asked.json["events"])
    assert last[1] == "failed" and "answers questions about" in last[2]["text"]
    _assert_no_question_is_kept(box)


def test_a_question_that_nobody_reads_is_cancelled(
    caller: Caller, box: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(question_routes, "GRACE_S", 0.05)
    caller("POST", f"{_study(box)}/questions", {"text": BLEED})
    for _ in range(200):
        if not list(box.questions.iterdir()):
            break
        time.sleep(0.02)
    _assert_no_question_is_kept(box)


def test_questions_are_limited_and_cancelled_by_their_asker_alone(
    caller: Caller, box: StateFolder
) -> None:
    path = f"{_study(box)}/questions"
    asked = [caller("POST", path, {"text": BLEED}).json["id"] for _ in range(4)]
    assert caller("POST", path, {"text": BLEED}).code == "too_many_questions"
    assert caller("POST", "/api/studies/" + "0" * 32 + "/questions", {"text": "x"}).status == 404
    for bad in ({"text": ""}, {"text": "x" * 5000}, {"text": "x", "max_tokens": 10**6}, {"t": 1}):
        assert caller("POST", path, bad).code == "bad_request"
    for name in asked:
        assert caller("DELETE", f"/api/questions/{name}").status == 204
    assert caller("DELETE", f"/api/questions/{asked[0]}").status == 404
    assert caller("DELETE", "/api/questions/..%2f..").status == 404
    _assert_no_question_is_kept(box)


def test_a_person_is_told_and_it_stands_in_the_list(caller: Caller, box: StateFolder) -> None:
    path = f"{_study(box)}/acknowledgements"
    told = {"result_number": 1, "received_by": "Dr Osei", "method": "telephone"}
    assert caller("POST", path, {**told, "result_number": 2}).code == "not_latest"
    for change in ({"method": "shouted"}, {"received_by": ""}, {"received_by": "a\nb"}):
        assert caller("POST", path, {**told, **change}).code == "bad_request"
    kept = caller("POST", path, told)
    assert kept.status == 201
    assert (kept.json["communicated_by"], kept.json["finding"]) == (
        USER, "intracranial_haemorrhage",
    )  # fmt: skip
    detail = caller("GET", _study(box)).json
    assert detail["acknowledgements"] == [kept.json]
    assert detail["study"]["acknowledged_at"]
    assert [line.who for line in audit.read(box) if line.event == "acknowledged"] == [USER]


def _events(
    caller: Caller, path: str, last: int = 0, count: int = 10**6
) -> list[tuple[int, str, dict]]:
    """At most so many events of a stream, which is left afterwards."""
    connection = http.client.HTTPConnection("127.0.0.1", caller.port, timeout=30)
    headers = {"Cookie": caller.cookie, "Last-Event-ID": str(last)}
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    assert response.headers["Content-Type"].startswith("text/event-stream")
    found: list[tuple[int, str, dict]] = []
    fields: dict[str, str] = {}
    while len(found) < count and (line := response.readline()):
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "event" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
            fields = {}
    connection.close()
    return found


def _assert_no_question_is_kept(box: StateFolder) -> None:
    left = [path.name for path in box.questions.iterdir() if path.name != "engine.json"]
    assert not left
    for path in box.path.rglob("*"):
        assert not path.is_file() or b"PLANTED" not in Path(path).read_bytes()
