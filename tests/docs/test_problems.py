import re
from pathlib import Path

from edge_medgemma.runtime.triage.urgency import BLOCKING_PROBLEMS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/problems.md").read_text(encoding="utf-8")


def table() -> dict[str, str]:
    """Code to what the last column of the page says of it."""
    rows = re.findall(r"^\| (`[^|]*`) \|[^|]*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    return {code: effect for codes, effect in rows for code in re.findall(r"`(\w+)`", codes)}


def test_every_problem_of_the_code_is_on_the_page_and_no_other() -> None:
    named: set[str] = set(BLOCKING_PROBLEMS)
    for path in (ROOT / "runtime").rglob("*.py"):
        named |= set(re.findall(r'Problem\(\s*"(\w+)"', path.read_text(encoding="utf-8")))
    named |= {"gantry_tilt", "sheared_stack"}  # chosen by modality where they are made
    assert set(table()) == named


def test_the_page_says_which_problems_withhold() -> None:
    withheld = {code for code, effect in table().items() if effect == "withholds"}
    assert withheld == set(BLOCKING_PROBLEMS)
