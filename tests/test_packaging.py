"""What is on disk is what the wheel holds, and the wheel runs from an empty folder."""

import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_listed_packages_are_the_folders_on_disk() -> None:
    on_disk = {
        ".".join(("edge_medgemma", *path.parent.relative_to(ROOT).parts))
        for top in ("export", "calibration", "runtime")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == {"edge_medgemma"} | on_disk


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_wheel_holds_every_tracked_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "export", "calibration", "runtime"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {f"edge_medgemma/{name}" for name in tracked} - packed == set()


def test_wheel_runs_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python3*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Dependencies come from the environment that runs the tests, but not its editable install.
    dependencies = [p for p in sys.path if p.endswith("site-packages")]
    code = (
        f"import runpy, sys; sys.path += {dependencies!r}\n"
        "import edge_medgemma\n"
        f"assert edge_medgemma.__file__.startswith({str(site)!r}), edge_medgemma.__file__\n"
        f"assert edge_medgemma.__version__ == {PROJECT['project']['version']!r}\n"
        "sys.argv = ['edge-medgemma', 'triage', '--help']\n"
        "runpy.run_module('edge_medgemma', run_name='__main__')"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [str(python), "-c", code], cwd=empty, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "SCAN" in done.stdout
