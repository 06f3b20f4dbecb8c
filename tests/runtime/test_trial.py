"""How a child's end is told, whatever it is."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from edge_medgemma.runtime.trial import Outcome, run_trial

HEAD = """
import os, signal, sys, time
from edge_medgemma.runtime.trial import finish, limit_child, step
arguments = limit_child()
step("ours", "a sum")
step("theirs", "a product")
"""

ENDS = {
    "finish(None, 'of ' + arguments[0])": Outcome(None, "theirs", True, "of one"),
    "finish('differs by 1')": Outcome("differs by 1", "", True),
    "os.kill(os.getpid(), signal.SIGILL)": Outcome("dies of SIGILL in a product", "theirs", True),
    "finish('is not taken: std::bad_alloc')": Outcome("is not taken: std::bad_alloc", "", False),
    "os.write(2, b'what(): std::bad_alloc'); os.abort()": Outcome(
        "dies of SIGABRT in a product", "theirs", False
    ),
    "os.abort()": Outcome("dies of SIGABRT in a product", "theirs", True),
    "finish(None); os.kill(os.getpid(), signal.SIGSEGV)": Outcome(
        "dies of SIGSEGV in a product", "theirs", True
    ),
    "os.kill(os.getpid(), signal.SIGKILL)": Outcome(
        "dies of SIGKILL in a product", "theirs", False
    ),
    "while True: pass": Outcome("does not end in a product", "theirs", True),
    "time.sleep(60)": Outcome("does not end in a product", "theirs", True),
    "raise MemoryError('no room')": Outcome(
        "could not be tried: MemoryError: no room", "theirs", False
    ),
    "sys.exit(0)": Outcome("could not be tried: status 0", "theirs", False),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_told(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tried.py").write_text(HEAD + end + "\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    limits = {"cpu_limit_s": 1, "wall_limit_s": 2.0 if "sleep" in end else 30.0}
    assert run_trial("tried", ["one"], **limits) == ENDS[end]


def test_a_child_that_dies_before_its_first_step(tmp_path, monkeypatch) -> None:
    (tmp_path / "tried.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_trial("tried", []) == Outcome("dies of SIGABRT", "", True)


def test_a_folder_that_happens_to_be_the_current_one_is_not_run(tmp_path, monkeypatch) -> None:
    (tmp_path / "tried.py").write_text(
        "from edge_medgemma.runtime.trial import finish; finish(None)"
    )
    monkeypatch.chdir(tmp_path)
    outcome = run_trial("tried", [])
    assert outcome.fault and "No module named tried" in outcome.fault and not outcome.is_certain


def test_no_child_can_be_started(monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    outcome = run_trial("tried", [])
    assert outcome == Outcome("could not be tried: No such file or directory", "", False)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_child_does_not_outlive_a_parent_that_is_killed(tmp_path, monkeypatch) -> None:
    (tmp_path / "tried.py").write_text(
        HEAD + f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "from edge_medgemma.runtime.trial import run_trial; run_trial('tried', [])"
    with subprocess.Popen([sys.executable, "-P", "-c", code]) as parent:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        child = psutil.Process(int((tmp_path / "pid").read_text()))
        parent.kill()
    _, alive = psutil.wait_procs([child], timeout=30)
    assert not alive
