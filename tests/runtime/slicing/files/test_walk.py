"""Whatever lies in a scan folder is named, opens nothing that blocks, and stops nothing."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError, open_regular
from edge_medgemma.runtime.slicing.files.walk import walk_files
from edge_medgemma.runtime.slicing.scan import find_series


def reasons(scan: Path) -> dict[str, str]:
    """Of what is skipped beside the nine sound slices."""
    listing = find_series(scan)
    assert listing.series[0].shape[0] == 9
    return {file.path: file.reason for file in listing.skipped}


def test_links_in_a_loop_are_named(phantom: Path) -> None:
    (phantom / "self").symlink_to("self")
    (phantom / "ping").symlink_to("pong")
    (phantom / "pong").symlink_to("ping")
    (phantom / "parent").symlink_to("..")
    (phantom / "dangling").symlink_to("nothing")
    nowhere = "link that leads nowhere"
    assert reasons(phantom) == {
        "self": nowhere,
        "ping": nowhere,
        "pong": nowhere,
        "dangling": nowhere,
        "parent": "link to a folder, not followed",
    }


def test_what_is_no_file_is_named_and_not_opened(phantom: Path) -> None:
    os.mkfifo(phantom / "pipe")
    (phantom / "linked pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(phantom)  # the address of a socket has 108 bytes
        try:
            listener.bind("socket")
        finally:
            os.chdir(before)
        found = reasons(phantom)
    assert found == {
        "pipe": "named pipe, not a file",
        "linked pipe": "named pipe, not a file",
        "socket": "socket, not a file",
    }


def test_a_pipe_in_the_place_of_a_listed_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableFileError, match="not a regular file"):
        open_regular(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["pipe", "self", "/dev/null", "missing"])
def test_a_scan_that_is_no_file_is_a_sentence(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(ScanError, match=r"does not exist or cannot be opened|not a file"):
        find_series(tmp_path / name)


def test_folders_deeper_than_the_stack_are_walked(
    phantom: Path, request: pytest.FixtureRequest
) -> None:
    depth = sys.getrecursionlimit() + 100
    request.addfinalizer(  # shutil, and pytest by it, needs a frame for each
        lambda: subprocess.run(["rm", "-rf", phantom / "d"], check=True)
    )
    handle = os.open(phantom, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
    os.close(handle)
    entries = list(walk_files(phantom))
    assert len(entries) == 10
    assert entries[-1].shown == "d/" * depth + "file"


def test_names_that_are_no_text_are_listed(phantom: Path) -> None:
    os.close(os.open(os.fsencode(phantom) + b"/\xff\xfe\x1b[31m", os.O_CREAT))
    os.mkdir(os.fsencode(phantom) + b"/\x80")
    os.close(os.open(os.fsencode(phantom) + b"/\x80/file", os.O_CREAT))
    assert len(reasons(phantom)) == 2
    for path in reasons(phantom):
        path.encode()


def test_a_scan_whose_own_name_is_no_text_is_read(phantom: Path) -> None:
    odd = os.fsdecode(os.fsencode(phantom.parent) + b"/\xff\x1b[31m")
    phantom.rename(odd)
    command = [sys.executable, "-m", "edge_medgemma", "inspect"]
    for arguments in ([odd], [odd, "--json"], [f"{odd}/missing"]):
        done = subprocess.run([*command, *arguments], capture_output=True, check=False)
        assert done.returncode == (1 if arguments[0].endswith("missing") else 0), done.stderr
        assert b"Traceback" not in done.stderr
        assert b"\x1b[31m" not in done.stdout + done.stderr
        done.stdout.decode()


@pytest.fixture
def reader() -> Iterator[Path]:
    """A folder of a user who is not root, as whom the test goes on."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    nobody = 65534
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(folder, nobody, nobody)
        os.seteuid(nobody)
    try:
        yield folder
    finally:
        for path in folder.iterdir():
            path.chmod(0o700)
        if is_root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_what_may_not_be_opened_is_named(reader: Path) -> None:
    for name in ("closed", "listable"):
        (reader / name).mkdir()
        (reader / name / "file").touch()
    (reader / "unreadable").touch()
    (reader / "closed").chmod(0)
    (reader / "listable").chmod(0o400)
    (reader / "unreadable").chmod(0)
    found = {entry.shown: entry.reason for entry in walk_files(reader)}
    assert found == {
        "closed": "folder that cannot be opened; check its permissions",
        "listable/file": "cannot be opened; check its permissions",
        "unreadable": None,
    }
    with pytest.raises(UnreadableFileError, match="check its permissions"):
        open_regular(reader / "unreadable")
    with pytest.raises(ScanError, match="cannot be opened"):
        find_series(reader / "closed" / "file")
