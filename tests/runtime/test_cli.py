"""What a user sees when something is wrong: one line and an exit status, never a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge_medgemma.runtime import cli as cli_module
from edge_medgemma.runtime.errors import ScanError


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_medgemma", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ScanError("found\nnothing"), 1, "error: found nothing"),
        (MemoryError(), 1, "error: out of memory"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_one_line(
    error: BaseException,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli_module.cli, "main", fail)
    with pytest.raises(SystemExit) as stop:
        cli_module.main()
    assert stop.value.code == status
    printed = capsys.readouterr().err
    assert printed.startswith(line)
    assert printed.count("\n") == 1


def test_unknown_command_is_a_usage_error() -> None:
    done = _run("diagnose")
    assert done.returncode == 2
    assert "No such command 'diagnose'" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_engine_is_one_line(tmp_path: Path) -> None:
    done = _run("verify", str(tmp_path / "none"), "--checkpoint", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: no engine directory")
    assert done.stderr.count("\n") == 1
