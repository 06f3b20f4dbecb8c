"""The page in a real browser, from a dropped folder to a printed sheet."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clinic_page import CHROMIUM, PASSWORD, USER, add_user, chromium, log_in, served
from support.clinic_states import copy_state, publish

from edge_medgemma.runtime.clinic.page.app import create_app
from edge_medgemma.runtime.clinic.questions.attendance import Attendance, EngineCard
from edge_medgemma.runtime.clinic.questions.mailbox import Mailbox
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Node, Site
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.clinic.worklist import audit
from edge_medgemma.runtime.clinic.worklist.store import Worklist
from edge_medgemma.runtime.reporting.translation import languages
from edge_medgemma.runtime.triage.report import TriageReport

pytest.importorskip("playwright", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")

SETTINGS = ClinicSettings(
    site=Site(name="Clinic", show_patient=True, demonstration=True), node=Node(reserve_gb=0)
)
CHECKS = (Path(__file__).parent / "accessibility.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def state(filled: tuple[StateFolder, dict[str, str]], tmp_path_factory: Any) -> StateFolder:
    """A copy that the tests here change."""
    return copy_state(filled[0], tmp_path_factory.mktemp("browser") / "state")


@pytest.fixture(scope="module")
def address(state: StateFolder) -> Iterator[str]:
    with served(create_app(state, SETTINGS)) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """Somebody who is logged in; nothing may fail or be blocked by the policy of the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en")
    context.set_default_timeout(90_000)
    found = context.new_page()
    problems: list[str] = []
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    log_in(found, address)
    yield found
    context.close()
    assert not problems


def _place(page: Any) -> int:
    return int(page.inner_text(".place").split("/")[0])


def _until(page: Any, condition: str) -> None:
    """Asked from outside: the page's policy forbids what playwright would run inside it."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never: {condition}")


def _wait_for_slices(page: Any) -> None:
    _until(page, "document.getElementById('viewer').dataset.frames > 0")


def test_a_dropped_folder_is_on_the_worklist(
    page: Any, address: str, state: StateFolder, phantom_scan: Path, demo_report: TriageReport
) -> None:
    with Worklist.open(state) as worklist:
        before = {row.key for row in worklist.studies()}
    page.goto(address + "/add")
    page.set_input_files("#folder", str(phantom_scan))
    page.wait_for_selector("#upload-links:not([hidden])")
    assert page.inner_text("#upload-state").startswith("All files have arrived.")
    with Worklist.open(state) as worklist:
        (row,) = [row for row in worklist.studies() if row.key not in before]
    assert row.instances == len(list(phantom_scan.iterdir())) and row.senders == ("upload",)
    page.click("#upload-links a")
    line = page.locator(".study", has=page.locator(f"#study-{row.key}"))
    assert "added on this page" in line.inner_text()
    publish(state, row.key, demo_report)  # the page renews itself
    line.get_by_text("Critical").first.wait_for()
    assert page.title().startswith("(2)")


def test_slices_scroll_by_wheel_keys_slider_and_finger(
    page: Any, address: str, keys: dict[str, str]
) -> None:
    page.goto(f"{address}/studies/{keys['critical']}")
    _wait_for_slices(page)
    first = _place(page)
    stage = page.locator(".stage")
    stage.hover()
    page.mouse.wheel(0, 120)
    _until(page, f"document.getElementById('slice').value == {first + 3}")
    stage.focus()
    for key, place in [("Home", 1), ("ArrowDown", 2), ("PageDown", 12), ("End", 34)]:
        page.keyboard.press(key)
        assert _place(page) == place
    page.fill("#slice", "20")
    assert _place(page) == 20
    assert page.get_attribute("#slice", "aria-valuetext").startswith("20 of 34")
    box = stage.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 100 + box["height"] / 34 * 5)
    page.mouse.up()
    assert _place(page) == 25
    page.click("a[data-slice='16']")
    assert _place(page) == 17
    brain = _grey(page)
    stage.focus()
    page.keyboard.press("3")
    _until(page, "document.querySelector('.trouble').textContent === ''")
    assert page.input_value("#window") == "bone" and abs(_grey(page) - brain) > 3


def _grey(page: Any) -> float:
    """Mean of the picture that is shown."""
    return float(
        page.evaluate(
            "() => { const c = document.querySelector('.stage canvas');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "let sum = 0; for (let i = 0; i < d.length; i += 4) sum += d[i]; return 4 * sum / d.length; }"
        )
    )


def test_an_answer_is_shown_as_it_is_written_and_as_text(
    page: Any, address: str, state: StateFolder, keys: dict[str, str]
) -> None:
    """The worker's end of the mailbox is driven here, piece by piece."""
    attendance = Attendance(state, EngineCard("engine", "0" * 64, "", True, 4096, 256))
    page.goto(f"{address}/studies/{keys['urgent']}")
    page.fill("#question", "Is there <b>blood</b>?")
    page.keyboard.press("Enter")
    mailbox = Mailbox(state)
    while not mailbox.pending():
        page.wait_for_timeout(20)
    writer = mailbox.writer(mailbox.pending()[0].id)
    writer.notice("Says nothing of real patients.")
    writer.piece("Looking.", is_thought=True)
    writer.piece("Maybe ")
    page.get_by_text("Maybe", exact=True).wait_for()
    assert page.locator("#stop").is_visible()
    writer.piece("<img src=x>12.3 mm")
    writer.finish("stop")
    writer.close()
    page.get_by_text("The answer is complete.").wait_for()
    attendance.close()
    said = page.locator(".conversation p").all_inner_texts()
    assert said == [
        "Is there <b>blood</b>?", "Says nothing of real patients.", "Looking.", "Maybe <img src=x>12.3 mm",
    ]  # fmt: skip
    assert page.get_attribute(".conversation p", "dir") == "auto"
    assert not list(state.questions.glob("?" * 40))


def test_a_critical_study_is_acknowledged(
    page: Any, address: str, state: StateFolder, keys: dict[str, str]
) -> None:
    page.goto(f"{address}/studies/{keys['critical']}")
    page.fill("input[name=received_by]", "Dr Otieno")
    page.select_option("select[name=method]", "telephone")
    page.click("#told button")
    page.wait_for_selector("#acknowledge .acknowledgement")
    assert "Dr Otieno" in page.inner_text("#acknowledge .acknowledgement")
    with Worklist.open(state) as worklist:
        (told,) = worklist.acknowledgements(keys["critical"])
    assert (told.communicated_by, told.received_by, told.method) == (USER, "Dr Otieno", "telephone")
    assert told.finding == "intracranial_haemorrhage"
    assert [line.event for line in audit.read(state)][-1] in ("acknowledged", "viewed")
    page.goto(address)
    line = page.locator(".study", has=page.locator(f"#study-{keys['critical']}"))
    assert "acknowledged" in line.inner_text()


def test_a_study_prints_on_one_page(page: Any, address: str, keys: dict[str, str]) -> None:
    for path in ("/sheet", ""):
        page.goto(f"{address}/studies/{keys['critical']}{path}")
        paper = page.pdf(format="A4", prefer_css_page_size=True)
        assert len(re.findall(rb"/Type\s*/Page\b", paper)) == 1, path or "study"


def test_all_of_it_works_by_keyboard(page: Any, address: str, keys: dict[str, str]) -> None:
    page.goto(address)

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        pytest.fail(f"the keyboard does not reach {selector}")

    tab_to(".skip")
    page.keyboard.press("Enter")
    tab_to(f"#study-{keys['critical']}")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/studies/{keys['critical']}")
    _wait_for_slices(page)
    tab_to(".stage")
    page.keyboard.press("End")
    assert _place(page) == 34
    for selector in ("#slice", "#window", "summary", "#question", "input[name=received_by]"):
        tab_to(selector)


def test_everything_has_a_name_contrast_and_room(
    page: Any, address: str, keys: dict[str, str]
) -> None:
    study, found = f"/studies/{keys['critical']}", {}
    for path in ("/login", "/", study, f"/studies/{keys['incomplete']}", "/add", "/setup"):
        page.goto(address + path)
        if path == study:
            page.click("summary")
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                found[path, width, scheme] = page.evaluate(CHECKS)
    if "fr" in languages():  # whose words are long
        page.context.add_cookies([{"name": "language", "value": "fr", "url": address}])
        page.set_viewport_size({"width": 390, "height": 844})
        for path in ("/", study, "/add", "/setup"):
            page.goto(address + path)
            found[path, 390, "fr"] = page.evaluate(CHECKS)
    assert not {where: problems for where, problems in found.items() if problems}


@pytest.mark.skipif("ar" not in languages(), reason="there is no Arabic language pack")
def test_arabic_runs_right_to_left_and_pictures_do_not(
    page: Any, address: str, keys: dict[str, str]
) -> None:
    page.goto(f"{address}/studies/{keys['critical']}")
    page.select_option("#language", "ar")
    page.wait_for_selector("html[dir=rtl]")
    page.wait_for_load_state()
    _wait_for_slices(page)
    boxes = {side: page.locator(f".stage .{side}").bounding_box() for side in ("left", "right")}
    assert boxes["left"]["x"] < boxes["right"]["x"]
    assert page.inner_text(".stage .left") == "R"
    assert page.evaluate("getComputedStyle(document.querySelector('.place')).direction") == "ltr"
    assert page.evaluate(CHECKS) == []


def test_a_wrong_password_is_said_in_words(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address + "/")
    assert page.url.endswith("/login")
    page.fill("input[name=user]", USER)
    page.fill("input[name=password]", PASSWORD + "?")
    page.click("main button")
    page.wait_for_selector("[role=alert]")
    assert "name or the password is wrong" in page.inner_text("[role=alert]")
    page.close()


def test_the_first_user_is_made_with_the_setup_code(browser: Any, tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.create()
    with served(create_app(state, SETTINGS)) as address:
        page = browser.new_page()
        page.goto(address)
        page.fill("input[name=code]", (state.path / "setup-code").read_text().strip())
        page.fill("input[name=user]", USER)
        page.fill("input[name=password]", PASSWORD)
        page.click("main button")
        page.wait_for_url(address + "/")
        assert "No scans yet" in page.inner_text("main")
        page.close()
    with pytest.raises(Exception, match="user"):
        add_user(state)
