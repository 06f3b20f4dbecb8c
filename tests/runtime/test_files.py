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
