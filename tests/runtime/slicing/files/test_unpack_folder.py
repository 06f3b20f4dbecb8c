"""Unpacked patients of a killed process go with the next one; those of a living one stay."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edge_medgemma.runtime.slicing.files import unpack_folder
from edge_medgemma.runtime.slicing.scan import find_series, read_volume

READING = """
import sys, tempfile
from pathlib import Path
tempfile.tempdir = sys.argv[2]
from edge_medgemma.runtime.slicing.scan import find_series
find_series(Path(sys.argv[1]))
print("read", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def archive(phantom: Path, tmp_path: Path) -> Path:
    target = tmp_path / "a.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for path in phantom.iterdir():
            made.write(path, path.name)
    return target


def reading(archive: Path, folder: Path) -> subprocess.Popen[bytes]:
    """A process that has unpacked an archive and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", READING, archive, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"read\n"
    return process


def slices(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("0*") if path.is_file()]


def test_what_a_killed_process_left_is_swept(archive: Path, private_folder: Path) -> None:
    with reading(archive, private_folder) as killed, reading(archive, private_folder) as living:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(slices(private_folder)) == 18
        series = find_series(archive).series[0]  # sweeps, and unpacks into a folder of its own
        assert len(slices(private_folder)) == 18
        assert len(list(private_folder.iterdir())) == 2
        unpack_folder.sweep_abandoned()
        assert read_volume(series).array.shape[0] == 9
        living.communicate()
    assert living.returncode == 0
    assert len(list(private_folder.iterdir())) == 1


def test_only_folders_of_this_user_and_this_kind_are_swept(
    private_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(name: str, *, has_lock: bool = True) -> Path:
        made = private_folder / name
        (made / "000000").mkdir(parents=True)
        (made / "000000/000000").touch()
        if has_lock:
            (made / unpack_folder.LOCK).touch()
        return made

    free = folder(unpack_folder.PREFIX + "free")
    kept = [
        folder("edge-medgemma-other"),
        folder(unpack_folder.PREFIX + "begun", has_lock=False),
        folder("elsewhere"),
    ]
    (private_folder / (unpack_folder.PREFIX + "link")).symlink_to(kept[2])
    of_pipe = folder(unpack_folder.PREFIX + "pipe", has_lock=False)
    (of_pipe / unpack_folder.LOCK).symlink_to(tmp_path)
    unpack_folder.sweep_abandoned()
    assert not free.exists()
    assert all((path / "000000/000000").exists() for path in [*kept, of_pipe])
    other_user = folder(unpack_folder.PREFIX + "other")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    unpack_folder.sweep_abandoned()
    assert other_user.exists()
