"""A level that dies, lies or hangs on this machine costs a triage nothing but its speed."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.broken_kernels import copy_with_broken_kernels

from edge_medgemma.runtime.kernels.level import choose_level, cpu_kernels

LEVELS = cpu_kernels.claimed_levels() if cpu_kernels else []
HEAD = Path(__file__).resolve().parents[1] / "data/ct_head"

pytestmark = pytest.mark.skipif(
    len(LEVELS) < 2 or shutil.which("gcc") is None or platform.machine() != "x86_64",
    reason="needs gcc and an x86-64 processor of two levels",
)

ENDINGS = {
    "illegal": "dies of SIGILL in attention of one row",
    "wrong": "differs from onnxruntime by",
    "endless": "does not end in attention of one row",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("broken")
    copy_with_broken_kernels(folder, LEVELS[0], cpu_limit_s=3)
    return folder


def run(copy: Path, way: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command of the copy, with a cache of its own for each way."""
    environment = {**os.environ, "BROKEN": way, "PYTHONPATH": str(copy)}
    environment["XDG_CACHE_HOME"] = str(copy / f"cache_{way}")
    command = [sys.executable, "-P", "-m", "edge_medgemma", *words]
    return subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("way", ENDINGS)
def test_triage_goes_on_with_the_next_level(copy, way, tmp_path) -> None:
    claimed = f"level {LEVELS[0]} of the kernels, which this processor claims to run, is not used"
    sentence = f"{claimed}: it {ENDINGS[way]}"
    triage = ["triage", str(HEAD), "--out", str(tmp_path / "out"), "--no-report", "--slices", "1"]
    done = run(copy, way, *triage)
    assert done.returncode == 0, done.stderr
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "out/triage.json").is_file()
    trials = list((copy / f"cache_{way}/edge-medgemma/trials").iterdir())
    assert len(trials) == 2, "that of the broken level and that of the next"


def test_doctor_says_it_from_the_kept_verdict(copy) -> None:
    """After the tests above; alone, it comes to the verdict itself."""
    done = run(copy, "illegal", "doctor")
    assert ENDINGS["illegal"] in " ".join(done.stderr.split())


def test_the_copy_is_sound_otherwise(copy) -> None:
    code = (
        "from edge_medgemma.runtime.kernels import level as l; print(l.__file__, l.choose_level())"
    )
    environment = {**os.environ, "PYTHONPATH": str(copy), "XDG_CACHE_HOME": str(copy / "sound")}
    words = [sys.executable, "-P", "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{copy}/edge_medgemma/runtime/kernels/level.py {choose_level()}"
