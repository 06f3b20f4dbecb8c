from pathlib import Path

import pytest

from edge_medgemma.runtime.documents import dump_json, dump_sealed, parse_json, unsealed
from edge_medgemma.runtime.store import number_cache
from edge_medgemma.runtime.store.number_cache import CachedNumbers

NUMBERS = {"cosine": 0.5, "steps": 8.0}


@pytest.fixture
def cached(tmp_path: Path) -> CachedNumbers:
    cached = CachedNumbers(tmp_path, "engine", "library 1.0")
    cached.write(NUMBERS)
    return cached


def test_numbers_are_those_of_the_same_names_and_dependencies(tmp_path, cached) -> None:
    assert cached.read(["steps", "cosine"]) == NUMBERS
    assert list(cached.read(["steps", "cosine"])) == ["steps", "cosine"]
    assert cached.read(["cosine"]) is None
    assert cached.read(["cosine", "steps", "kl"]) is None
    assert CachedNumbers(tmp_path, "engine", "library 1.1").read(NUMBERS) is None
    assert CachedNumbers(tmp_path / "none", "engine", "library 1.0").read(NUMBERS) is None


@pytest.mark.parametrize(
    "alter",
    [
        lambda text: text[:-3],
        lambda text: text.replace("0.5", "NaN"),
        lambda text: text.replace("0.5", "null"),
        lambda text: text.replace('"key"', '"other"'),
        lambda text: resealed(text, {"key": "0" * 64}),
        lambda text: dump_json(parse_json(unsealed(text.encode()), dict)),
        lambda text: text.replace("0.5", "0.7"),
        lambda text: text.replace(" ", ""),
        lambda text: resealed(text, {"surprise": 1}),
        lambda _: "[]",
        lambda _: "\ufffd",
    ],
)
def test_a_damaged_file_is_absent(tmp_path, cached, alter) -> None:
    (path,) = tmp_path.iterdir()
    path.write_text(alter(path.read_text()))
    assert cached.read(NUMBERS) is None


def resealed(text: str, changes: dict[str, object]) -> str:
    return dump_sealed(parse_json(unsealed(text.encode()), dict) | changes)


def test_a_file_is_read_again_only_as_it_was_written(tmp_path, cached) -> None:
    (path,) = tmp_path.iterdir()
    path.write_text(resealed(path.read_text(), {}))
    assert cached.read(NUMBERS) == NUMBERS


def test_no_flipped_bit_is_believed(tmp_path, cached) -> None:
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert cached.read(NUMBERS) is None, f"bit {bit}"


def test_numbers_of_another_build_of_the_program_are_measured_again(
    tmp_path, cached, monkeypatch
) -> None:
    monkeypatch.setattr(number_cache, "program_identity", lambda: "edge-medgemma 0.2.0 abc")
    assert CachedNumbers(tmp_path, "engine", "library 1.0").read(NUMBERS) is None


def test_numbers_that_are_not_finite_are_not_cached(tmp_path) -> None:
    for number in (float("nan"), float("inf")):
        CachedNumbers(tmp_path, "engine").write({"cosine": number})
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_costs_time_only(tmp_path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    cached = CachedNumbers(tmp_path / "home" / "self-tests", "engine")
    cached.write(NUMBERS)
    assert cached.read(NUMBERS) is None
