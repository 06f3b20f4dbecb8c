"""The worklist of `make triage` shows what README says of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.options import TriageOptions
from edge_medgemma.runtime.triage.triage_scan import triage_scan

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def worklist(tmp_path_factory):
    """The report of the studies as the Makefile lays them out, by name."""
    folder = tmp_path_factory.mktemp("demonstration")
    (folder / ".triage-ready").touch()  # the running interpreter has the runtime already
    settings = [f"VENV={folder}", f"BIN={Path(sys.executable).parent}"]
    subprocess.run(
        ["make", "-s", "demonstration-scans", f"DEMONSTRATION={folder / 'scans'}", *settings],
        cwd=REPOSITORY,
        check=True,
    )
    with Engine.open(BUILTIN_ENGINE, threads=1) as engine:
        report = triage_scan(engine, folder / "scans", TriageOptions())
    assert not report.skipped
    return {study.name: study for study in report.studies}


def test_the_synthetic_bleed_comes_first_and_is_flagged_for_blood_alone(worklist):
    assert next(iter(worklist)) == "Study 1"
    assert worklist["Study 1"].urgency == "critical"
    assert [f.code for f in worklist["Study 1"].flagged] == ["intracranial_haemorrhage"]


def test_the_synthetic_head_without_findings_has_no_flag(worklist):
    assert worklist["Study 2"].urgency == "routine"
    assert not worklist["Study 2"].flagged


def test_the_real_head_is_not_assessable_and_stands_between_them(worklist):
    assert list(worklist) == ["Study 1", "Study 3", "Study 2"]
    real = worklist["Study 3"]
    assert real.urgency == "not_assessable"
    assert not real.flagged
    assert "unlike anything this engine was calibrated on" in real.limitations
