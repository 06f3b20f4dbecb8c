"""What each view says, over results of the demo engine."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.clinic_page import PASSWORD, USER, logged_in, served
from support.clinic_states import ACCESSION, NAME, NUMBER, as_urgency, copy_state, publish

from edge_medgemma.runtime.clinic.page.app import create_app
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Site
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.results import result_folder
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.triage.report import TriageReport
from edge_medgemma.runtime.triage.urgency import Urgency

Filled = tuple[StateFolder, dict[str, str]]


def _words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html))


def _line(html: str, key: str) -> str:
    """The line of one study in the worklist, as words."""
    lines = [part for part in html.split('<li class="study')[1:] if key in part]
    assert len(lines) == 1
    return _words(lines[0])


def test_worklist_has_the_order_of_the_store_and_words_for_every_state(
    client: TestClient, filled: Filled
) -> None:
    state, keys = filled
    html = client.get("/").text
    with Worklist.open(state) as worklist:
        expected = [row.key for row in worklist.studies()]
    assert re.findall(r'id="study-([0-9a-f]{32})"', html) == expected
    assert "Critical" in _line(html, keys["critical"])
    assert "Intracranial haemorrhage" in _line(html, keys["critical"])
    assert "No flag raised" in _line(html, keys["routine"])
    assert "not a normal report" in _line(html, keys["routine"])
    assert "may be incomplete" in _line(html, keys["incomplete"])
    assert "5 of 24 images" in _line(html, keys["incomplete"])
    assert "Not assessable" in _line(html, keys["failed"])
    assert "None of its files is an image" in _line(html, keys["failed"])
    assert "Waiting to be looked at" in _line(html, keys["waiting"])
    assert "Images are arriving" in _line(html, keys["arriving"])
    assert "from CT2" in _line(html, keys["arriving"])


def test_study_says_findings_in_words_and_folds_figures(
    client: TestClient, keys: dict[str, str]
) -> None:
    html = client.get(f"/studies/{keys['critical']}").text
    before, folded = html.split("<details>")
    assert "Intracranial haemorrhage" in before and "Show this scan to a doctor now" in before
    assert "Log-odds" not in before and "Log-odds" in folded
    assert not re.search(r"[+−-]\d+\.\d\d", _words(before))
    assert "Demonstration only" in _words(before)
    assert "Earlier looks at this study" in before + folded


def test_a_study_has_the_same_number_on_list_page_and_paper(
    client: TestClient, keys: dict[str, str]
) -> None:
    for name in ("critical", "urgent"):
        key = keys[name]
        assert f"Study {key[:8]}" in _line(client.get("/").text, key)
        assert f"Study {key[:8]}" in _words(client.get(f"/studies/{key}").text)
        paper = _words(client.get(f"/studies/{key}/sheet").text)
        assert f"Study {key[:8]} · " in paper and "Study 1 · " not in paper


def test_doubts_stand_with_what_a_person_can_do(client: TestClient, keys: dict[str, str]) -> None:
    words = _words(client.get(f"/studies/{keys['incomplete']}").text)
    assert "The transfer of the images broke off. Send the study again" in words
    assert "The study may be incomplete" in words


def test_flag_of_an_earlier_look_stays(
    filled: Filled, demo_report: TriageReport, tmp_path: Path
) -> None:
    state = copy_state(filled[0], tmp_path / "state")
    key = filled[1]["critical"]
    publish(state, key, as_urgency(demo_report, Urgency.ROUTINE))
    with logged_in(create_app(state, ClinicSettings())) as client:
        for path in ("/", f"/studies/{key}", f"/studies/{key}/sheet"):
            words = _words(client.get(path).text)
            assert "An earlier look flagged: Intracranial haemorrhage" in words, path
        assert "Critical" in _line(client.get("/").text, key)


def test_random_weights_have_no_result(
    filled: Filled, demo_report: TriageReport, tmp_path: Path
) -> None:
    state = copy_state(filled[0], tmp_path / "state")
    key = filled[1]["urgent"]
    engine = replace(demo_report.engine, has_random_weights=True)
    publish(state, key, replace(demo_report, engine=engine))
    with logged_in(create_app(state, ClinicSettings())) as client:
        line = _line(client.get("/").text, key)
        assert "No result" in line and "haemorrhage" not in line
        assert "possible" not in _words(client.get(f"/studies/{key}").text)


def test_a_result_that_cannot_be_read_shows_what_the_worklist_knows(
    filled: Filled, tmp_path: Path
) -> None:
    state = copy_state(filled[0], tmp_path / "state")
    key = filled[1]["critical"]
    for file in result_folder(state, key, 2).rglob("*.png"):
        file.write_bytes(b"damaged")
    with logged_in(create_app(state, ClinicSettings())) as client:
        assert "Possible: Intracranial haemorrhage" in _line(client.get("/").text, key)
        answer = client.get(f"/studies/{key}")
        assert answer.status_code == 200 and "Critical" in answer.text


@pytest.mark.parametrize("shows", [False, True])
def test_people_are_named_only_where_the_site_says_so(
    filled: Filled, tmp_path: Path, shows: bool
) -> None:
    state, keys = filled
    site = Site(show_patient=shows, show_accession=shows)
    paths = ["/", "/add", "/setup", *(f"/studies/{key}" for key in keys.values())]
    with logged_in(create_app(state, ClinicSettings(site=site))) as client:
        pages = [client.get(path) for path in paths]
        pages.append(client.get(f"/studies/{keys['critical']}/stack"))
    for page in pages:
        title = "".join(re.findall("<title>(.*?)</title>", page.text, re.DOTALL))
        planted = [NUMBER, ACCESSION, *NAME.split("^"), "1981"]
        assert not [one for one in planted if one in title]
        if not shows:
            assert not [one for one in planted if one in page.text]
    assert (NUMBER in pages[0].text) is shows and (ACCESSION in pages[3].text) is shows


def test_no_page_is_kept_or_runs_foreign_scripts(client: TestClient, keys: dict[str, str]) -> None:
    study = f"/studies/{keys['critical']}"
    for path in ("/", "/add", "/setup", study, f"{study}/sheet", f"{study}/stack", "/nothing"):
        answer = client.get(path)
        assert answer.headers["Cache-Control"] == "no-store", path
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert not re.search(r"script-src[^;]*(unsafe|http|\*)", policy)
        if not path.endswith("sheet"):
            assert not re.search(
                r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*src=)", answer.text
            ), path


def test_addresses_that_lead_nowhere(client: TestClient, keys: dict[str, str]) -> None:
    study = f"/studies/{keys['critical']}"
    for path in (
        "/studies/nothing", f"/studies/{'0' * 32}", f"{study}/sheet?result=99", f"{study}/sheet?result=x",
        f"{study}/results/2/key_images/0/99.png", f"{study}/slices/..%2F..%2Fsecret/brain/0.jpg",
        f"/studies/{'0' * 32}/stack", "/setup/authority.pem", "/live?study=x",
    ):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert "There is nothing here" in answer.text, path


def test_language_is_the_cookies_then_the_browsers_then_the_sites(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_medgemma.runtime.clinic.page import languages

    monkeypatch.setattr(languages, "languages", lambda: ("en", "ar", "fr", "pt"))
    from starlette.requests import Request

    def chosen(accepted: str, cookie: str = "", site: str = "ar") -> str:
        headers = [(b"accept-language", accepted.encode()), (b"cookie", cookie.encode())]
        return languages.language_of(Request({"type": "http", "headers": headers}), site)

    assert chosen("fr-CH, en;q=0.9", "language=pt") == "pt"
    assert chosen("en;q=0.5, fr-CH;q=0.9") == "fr"
    assert chosen("xx, *;q=0.1", "language=../../etc") == "ar"
    assert chosen("", site="none") == "en"
    assert chosen("de;q=rubbish,fr") == "fr"


def _next_news(lines: Iterator[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next(one for one in lines if one.startswith("data: "))[6:])
    return found


def test_live_tells_of_a_new_critical_study_without_a_word_of_it(
    filled: Filled, demo_report: TriageReport, tmp_path: Path
) -> None:
    state, keys = copy_state(filled[0], tmp_path / "state"), filled[1]
    with served(create_app(state, ClinicSettings())) as address:
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        form = urllib.parse.urlencode({"user": USER, "password": PASSWORD}).encode()
        browser.open(urllib.request.Request(f"{address}/api/login", form, {"Origin": address}))
        with browser.open(f"{address}/live") as answer:
            lines = (line.decode() for line in answer)
            first = _next_news(lines)
            page = browser.open(address + "/").read().decode()
            assert f'data-digest="{first["digest"]}"' in page
            assert first["alarms"] == [keys["critical"]]
            publish(state, keys["waiting"], demo_report)
            second = _next_news(lines)
            while keys["waiting"] not in second["alarms"]:
                second = _next_news(lines)
            assert second.keys() == {"digest", "alarms"} and second["digest"] != first["digest"]


def test_pages_read_without_scripts(client: TestClient, keys: dict[str, str]) -> None:
    assert '<noscript><meta http-equiv="refresh"' in client.get("/").text
    html = client.get(f"/studies/{keys['critical']}").text
    pictures = re.findall(r'<img src="([^"]+)"', html)
    assert len(pictures) >= 3
    for picture in pictures:
        answer = client.get(picture)
        assert answer.status_code == 200 and answer.content.startswith(b"\x89PNG")


def test_who_looked_at_which_study_stands_in_the_audit(filled: Filled, tmp_path: Path) -> None:
    state, key = copy_state(filled[0], tmp_path / "state"), filled[1]["critical"]
    before = len(list(audit.read(state)))
    with logged_in(create_app(state, ClinicSettings(site=Site(demonstration=True)))) as caller:
        for _ in range(3):  # loaded again whenever something changes
            assert caller.get(f"/studies/{key}").status_code == 200
        caller.get(f"/studies/{'0' * 32}")
    lines = list(audit.read(state))[before:]
    viewed = [(line.who, line.study_key) for line in lines if line.event == "viewed"]
    assert viewed == [(USER, key)]
