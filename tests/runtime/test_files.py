import os
import stat
from pathlib import Path

import pytest
from support.small_disk import small_disk

from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.files import (
    new_directory,
    new_file,
    remove_abandoned,
    write_atomically,
)


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_atomically(path, b"old")
    with small_disk(), pytest.raises(ResourceError, match=r"report\.json"):
        write_atomically(path, bytes(100_000))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ResourceError, match="no regular file"):
        write_atomically(pipe, b"new")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_a_full_disk_leaves_no_directory(tmp_path: Path) -> None:
    with (
        small_disk(),
        pytest.raises(ResourceError),
        new_directory(tmp_path / "engine") as folder,
    ):
        (folder / "a").write_bytes(bytes(100_000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_an_interrupted_directory_leaves_nothing(tmp_path: Path, stop: type[BaseException]) -> None:
    with pytest.raises(stop), new_directory(tmp_path / "engine") as folder:
        (folder / "a").write_bytes(b"x")
        raise stop
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "mine").write_bytes(b"x")
    with (
        pytest.raises(ResourceError, match="exists already"),
        new_directory(tmp_path / "engine"),
    ):
        pass
    assert (tmp_path / "engine" / "mine").read_bytes() == b"x"


def test_only_what_a_dead_writer_left_is_removed(tmp_path: Path) -> None:
    abandoned = tmp_path / ".report.json.abc"
    abandoned.write_bytes(b"half")
    with new_file(tmp_path / "report.json") as file:
        file.write(b"whole")
        (living,) = (path for path in tmp_path.iterdir() if path != abandoned)
        assert remove_abandoned(abandoned) and not remove_abandoned(living)
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    assert not remove_abandoned(abandoned)


@pytest.mark.skipif(os.name == "nt", reason="there is no umask")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_the_umask_decides_who_reads_a_report(tmp_path: Path, umask: int) -> None:
    earlier = os.umask(umask)
    try:
        write_atomically(tmp_path / "report.json", b"x")
        with new_file(tmp_path / "scan", mode=0o600) as file:
            (temporary,) = (path for path in tmp_path.iterdir() if path.name.startswith(".scan"))
            assert mode(temporary) == 0o600, "nor may others read it while it is written"
            file.write(b"x")
        with new_directory(tmp_path / "engine") as folder:
            (folder / "a").write_bytes(b"x")
        write_atomically(tmp_path / "made" / "report.json", b"x")
    finally:
        os.umask(earlier)
    assert mode(tmp_path / "report.json") == 0o666 & ~umask
    assert mode(tmp_path / "scan") == 0o600
    assert mode(tmp_path / "engine") == mode(tmp_path / "made") == 0o777 & ~umask


@pytest.mark.skipif(os.name == "nt", reason="it has other modes")
def test_a_report_that_was_made_private_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_atomically(path, b"old")
    path.chmod(0o600)
    write_atomically(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_a_killed_run_left_is_deleted_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    abandoned, other = tmp_path / ".engine.0123456789ab", tmp_path / ".engine.notes"
    for folder in (abandoned, other):
        (folder / ".scratch.x").mkdir(parents=True)
    with new_directory(tmp_path / "engine") as living:
        assert set(tmp_path.iterdir()) == {other, living}
        with pytest.raises(KeyboardInterrupt), new_directory(tmp_path / "engine"):
            assert living.is_dir()
            raise KeyboardInterrupt
    assert set(tmp_path.iterdir()) == {other, tmp_path / "engine"}
