"""A cache that somebody else can have written is not used, and said to be so once."""

import os
import stat
from pathlib import Path

import pytest

from edge_medgemma.runtime.commands.doctor import diagnose
from edge_medgemma.runtime.store.number_cache import CachedNumbers
from edge_medgemma.runtime.store.places import Place, cache_folder
from edge_medgemma.runtime.store.scan_cache import Kind, ScanCache

pytestmark = pytest.mark.skipif(os.name == "nt", reason="its files have no owner and mode")

NUMBERS = {"fracture": 0.5}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))


@pytest.fixture
def numbers() -> CachedNumbers:
    numbers = CachedNumbers(Place.BASELINES.folder, "engine")
    numbers.write(NUMBERS)
    assert numbers.read(NUMBERS) == NUMBERS
    return numbers


def test_caches_are_private_whatever_the_umask(numbers: CachedNumbers) -> None:
    earlier = os.umask(0)
    try:
        CachedNumbers(Place.SELF_TESTS.folder, "engine").write(NUMBERS)
    finally:
        os.umask(earlier)
    for place in (Place.BASELINES, Place.SELF_TESTS):
        (file,) = place.folder.iterdir()
        assert (mode(file), mode(place.folder), mode(cache_folder())) == (0o600, 0o700, 0o700)


@pytest.mark.parametrize("bits", [0o020, 0o002])
@pytest.mark.parametrize("kind", ["file", "folder", "root"])
def test_what_others_can_write_is_not_used(
    numbers: CachedNumbers, kind: str, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    (file,) = Place.BASELINES.folder.iterdir()
    path = {"file": file, "folder": file.parent, "root": cache_folder()}[kind]
    path.chmod(mode(path) | bits)
    assert numbers.read(NUMBERS) is None and numbers.read(NUMBERS) is None
    assert caplog.text.count("other users can write it; run chmod go-w") == 1
    if kind != "file":
        CachedNumbers(Place.BASELINES.folder, "other").write(NUMBERS)
        assert list(Place.BASELINES.folder.iterdir()) == [file], "nothing is written there either"


def test_what_another_user_owns_is_not_used(
    numbers: CachedNumbers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert numbers.read(NUMBERS) is None
    assert "another user owns it" in caplog.text


def test_a_scan_that_another_can_have_written_is_computed_again(tmp_path: Path) -> None:
    import numpy as np

    def read() -> list[int] | None:
        return ScanCache().read(
            Kind.FEATURES, "k", "e", lambda arrays: [int(one.sum()) for one in arrays]
        )

    ScanCache().write(Kind.FEATURES, "k", "e", [np.ones(3, np.float32)])
    assert read() == [3]
    Place.SCANS.folder.chmod(0o770)
    assert read() is None
    refused = ScanCache()
    refused.write(Kind.FEATURES, "k2", "e", [np.ones(3, np.float32)])
    assert "other users can write it" in refused.write_error
    Place.SCANS.folder.chmod(0o750)
    assert read() == [3]


def test_doctor_names_a_cache_that_is_not_used(
    numbers: CachedNumbers, tiny_engine_directory: Path
) -> None:
    assert not any("cache" in one for one in diagnose(tiny_engine_directory).problems)
    Place.BASELINES.folder.chmod(0o777)
    (problem,) = (one for one in diagnose(tiny_engine_directory).problems if "cache" in one)
    assert str(Place.BASELINES.folder) in problem


def test_a_pipe_in_place_of_a_file_is_not_waited_for(numbers: CachedNumbers) -> None:
    (file,) = Place.BASELINES.folder.iterdir()
    file.unlink()
    os.mkfifo(file, 0o600)
    assert numbers.read(NUMBERS) is None
