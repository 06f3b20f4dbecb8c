import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_medgemma.runtime.errors import ResourceError
from edge_medgemma.runtime.files import new_directory, write_atomically


@contextmanager
def small_disk() -> Iterator[None]:
    """Files may not pass 4 KiB, as on a disk that fills; the signal is ignored, the call fails.

    Not a fixture: the limit would also hold for a test runner that writes to a file.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


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
