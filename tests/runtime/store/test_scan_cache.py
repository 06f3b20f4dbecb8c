import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.small_disk import small_disk

from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.files import new_file
from edge_medgemma.runtime.generation.prompt import Chunk
from edge_medgemma.runtime.generation.scan_keys import features_key, prefix_key
from edge_medgemma.runtime.store import scan_cache as scan_cache_module
from edge_medgemma.runtime.store.entries import UNFINISHED
from edge_medgemma.runtime.store.scan_cache import Kind, ScanCache

ENGINE = "e" * 64
ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4)[:, 1:3],  # a view, not contiguous
    np.arange(6, dtype=np.float16).reshape(1, 2, 3),
    np.zeros((4, 0), np.int64),
    np.array([-3, 4], np.int8),
]


def key(number: int) -> str:
    return f"{number:064x}"


def read(cache: ScanCache, number: int = 1, engine: str = ENGINE) -> list[np.ndarray] | None:
    return cache.read(Kind.FEATURES, key(number), engine, list)


@pytest.fixture
def cache(tmp_path: Path) -> ScanCache:
    return ScanCache(tmp_path / "scans")


@pytest.fixture
def file(cache: ScanCache) -> Path:
    """One whole file of the cache."""
    cache.write(Kind.FEATURES, key(1), ENGINE, ARRAYS)
    (entry,) = cache.entries()
    return entry.path


def test_what_is_written_is_read_bit_for_bit(cache: ScanCache, file: Path) -> None:
    found = read(cache)
    assert found is not None and len(found) == len(ARRAYS)
    for one, other in zip(found, ARRAYS, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()
    assert read(cache, 2) is None
    assert not cache.write_error


def test_safetensors_reads_the_file(file: Path) -> None:
    tensors = load_file(file)
    for index, array in enumerate(ARRAYS):
        np.testing.assert_array_equal(tensors[str(index)], array)


def test_only_the_user_can_read_it(cache: ScanCache, file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_cut_anywhere_is_absent_and_deleted(cache: ScanCache, file: Path) -> None:
    whole = file.read_bytes()
    for size in (0, 1, 31, 32, 39, 40, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert read(cache) is None, size
        assert not file.exists(), size
    file.write_bytes(whole + b"x")
    assert read(cache) is None and not file.exists()


def test_any_altered_byte_makes_it_absent(cache: ScanCache, file: Path) -> None:
    whole = bytearray(file.read_bytes())
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 1
        file.write_bytes(altered)
        assert read(cache) is None, place
        assert not file.exists(), place
    file.write_bytes(whole)
    assert read(cache) is not None


def test_a_file_under_a_wrong_name_is_absent(cache: ScanCache, file: Path) -> None:
    whole = file.read_bytes()
    (file.parent / f"{key(2)}.features").write_bytes(whole)
    assert read(cache, 2) is None
    (file.parent / f"{key(1)}.prefix").write_bytes(whole)
    assert cache.read(Kind.PREFIX, key(1), ENGINE, list) is None
    assert read(cache, 1, engine="f" * 64) is None
    assert cache.entries() == []


def test_a_file_that_does_not_fit_is_deleted(cache: ScanCache, file: Path) -> None:
    def refuse(arrays: object) -> None:
        raise ValueError("another shape")

    assert cache.read(Kind.FEATURES, key(1), ENGINE, refuse) is None
    assert not file.exists()


def test_a_failing_engine_is_not_taken_for_a_damaged_file(cache: ScanCache, file: Path) -> None:
    def fail(arrays: object) -> None:
        raise EngineError("the decoder does not load")

    with pytest.raises(EngineError):
        cache.read(Kind.FEATURES, key(1), ENGINE, fail)
    assert file.exists()


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    array = [np.zeros(1000, np.float32)]
    probe = ScanCache(tmp_path / "probe")
    probe.write(Kind.FEATURES, key(0), ENGINE, array)
    size = probe.entries()[0].bytes
    cache = ScanCache(tmp_path / "scans", limit_bytes=3 * size)
    for number in (1, 2, 3):
        cache.write(Kind.FEATURES, key(number), ENGINE, array)
        os.utime(tmp_path / "scans" / f"{key(number)}.features", (number, number))
    assert read(cache, 1) is not None  # now the newest
    cache.write(Kind.FEATURES, key(4), ENGINE, array)
    kept = [number for number in range(1, 5) if cache.holds(Kind.FEATURES, key(number))]
    assert kept == [1, 3, 4]
    cache.write(Kind.FEATURES, key(5), ENGINE, [np.zeros(4000, np.float32)])
    assert not cache.holds(Kind.FEATURES, key(5)) and not cache.write_error
    assert sum(entry.bytes for entry in cache.entries()) == 3 * size


def test_leftovers_of_killed_writers_go_and_living_ones_count(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    cache = ScanCache(folder, limit_bytes=20_000)
    folder.mkdir()
    (folder / f".{key(7)}.prefix.abc").write_bytes(bytes(50_000))
    with new_file(folder / f"{key(8)}.prefix") as living:
        living.write(bytes(15_000))
        living.flush()
        cache.write(Kind.FEATURES, key(1), ENGINE, [np.zeros(1000, np.float32)])
        cache.write(Kind.FEATURES, key(2), ENGINE, [np.zeros(1000, np.float32)])
        kinds = [entry.kind for entry in cache.entries()]
        assert sorted(kinds) == ["features", UNFINISHED]
        assert sum(entry.bytes for entry in cache.entries()) <= 20_000
    assert {entry.kind for entry in cache.entries()} == {"features", "prefix"}


def test_a_full_disk_is_one_line_and_leaves_nothing(cache: ScanCache, tmp_path: Path) -> None:
    with small_disk():
        cache.write(Kind.FEATURES, key(1), ENGINE, [np.zeros(10_000, np.float32)])
    assert re.fullmatch(
        r"the scan is not kept for later questions: File too large.*", cache.write_error
    )
    assert list((tmp_path / "scans").iterdir()) == []
    cache.write(Kind.FEATURES, key(1), ENGINE, ARRAYS)
    assert cache.entries() == []  # no second try, no second line


def test_the_disk_is_not_filled_to_the_brim(
    cache: ScanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_cache_module, "MINIMUM_FREE_BYTES", 2**62)
    cache.write(Kind.FEATURES, key(1), ENGINE, ARRAYS)
    assert "No space left" in cache.write_error and cache.entries() == []


def test_a_home_that_cannot_be_written_costs_the_cache_only(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    cache = ScanCache(tmp_path / "home" / "scans")
    assert read(cache) is None and cache.entries() == [] and not cache.write_error
    cache.write(Kind.FEATURES, key(1), ENGINE, ARRAYS)
    assert "Not a directory" in cache.write_error
    assert str(tmp_path) not in cache.write_error


def test_a_key_names_everything_its_contents_depend_on() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    changed = pixels.copy()
    changed[1, 2, 0] += 1
    features = {
        features_key("engine cpu", "medgemma-ct", pixels),
        features_key("engine other", "medgemma-ct", pixels),
        features_key("engine cpu", "medgemma-mr", pixels),
        features_key("engine cpu", "medgemma-ct", changed),
        features_key("engine cpu", "medgemma-ct", pixels.reshape(4, 2, 3)),
    }
    assert len(features) == 5
    assert features_key("engine cpu", "medgemma-ct", pixels.copy()) in features
    a, b = Chunk((1, 2, 3), 1), Chunk((4, 5), 1)
    prefixes = {
        prefix_key("engine", [a, b], ["x", "y"]),
        prefix_key("other", [a, b], ["x", "y"]),
        prefix_key("engine", [a, b], ["y", "x"]),
        prefix_key("engine", [b, a], ["x", "y"]),
        prefix_key("engine", [Chunk((1, 2), 1), Chunk((3, 4, 5), 1)], ["x", "y"]),
        prefix_key("engine", [Chunk((1, 2, 3, 4, 5), 2)], ["x", "y"]),
        prefix_key("engine", [a, b], ["xy", ""]),
    }
    assert len(prefixes) == 7


KILLED_WRITERS = """
import os, random, sys
from pathlib import Path
import numpy as np
from support.kill_at import kill_at
from edge_medgemma.runtime.store.entries import UNFINISHED
from edge_medgemma.runtime.store.scan_cache import Kind, ScanCache

folder, limit = Path(sys.argv[1]), 4_000_000
keys = [f"{n:064x}" for n in range(6)]
def arrays(n):
    return list(np.random.default_rng(n).standard_normal((4, 50_000), np.float32))
expected = {k: arrays(n) for n, k in enumerate(keys)}
whole = unfinished = 0
for change in range(1, 26):
    child = os.fork()
    if child == 0:
        random.seed(change)
        cache = ScanCache(folder, limit)
        kill_at(change)
        while True:
            for k in random.sample(keys, 6):
                cache.write(Kind.PREFIX, k, "e" * 64, expected[k])
    os.waitpid(child, 0)
    cache = ScanCache(folder, limit)
    unfinished += sum(entry.kind == UNFINISHED for entry in cache.entries())
    for k in keys:
        found = cache.read(Kind.PREFIX, k, "e" * 64, list)
        if found is not None:
            whole += 1
            assert all((a == b).all() for a, b in zip(found, expected[k], strict=True)), k
    cache.write(Kind.FEATURES, keys[0], "e" * 64, expected[keys[0]][:1])
    assert not cache.write_error, cache.write_error
    entries = cache.entries()
    assert sum(entry.bytes for entry in entries) <= limit
    assert UNFINISHED not in {entry.kind for entry in entries}
print(whole, unfinished)
"""


def test_killed_writers_leave_nothing_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_WRITERS, str(tmp_path / "scans")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole, unfinished = map(int, done.stdout.split())
    assert whole > 50 and unfinished > 5
