"""The tests of this folder are collected, and an engine runs, with what a device installs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "arguments", [("--collect-only", "tests/runtime"), ("tests/runtime/generation/test_prefix.py",)]
)
def test_without_the_exporter(arguments: tuple[str, ...]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "support.device_imports"]
    command += ["-p", "no:faulthandler", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
