import json
from pathlib import Path

import pytest

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
        lambda text: json.dumps(json.loads(text) | {"key": "0" * 64}),
        lambda _: "[]",
        lambda _: "\ufffd",
    ],
)
def test_a_damaged_file_is_absent(tmp_path, cached, alter) -> None:
    (path,) = tmp_path.iterdir()
    path.write_text(alter(path.read_text()))
    assert cached.read(NUMBERS) is None


def test_numbers_that_are_not_finite_are_not_cached(tmp_path) -> None:
    for number in (float("nan"), float("inf")):
        CachedNumbers(tmp_path, "engine").write({"cosine": number})
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_costs_time_only(tmp_path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    cached = CachedNumbers(tmp_path / "home" / "self-tests", "engine")
    cached.write(NUMBERS)
    assert cached.read(NUMBERS) is None
