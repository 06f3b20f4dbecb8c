import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.fake_engine import FakeEngine
from support.schemas import assert_valid
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.commands import ask, cache
from edge_medgemma.runtime.store.places import Place
from edge_medgemma.runtime.store.scan_cache import ScanCache


@pytest.fixture(autouse=True)
def engine(tmp_path, monkeypatch) -> FakeEngine:
    """An engine, and a cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engine = FakeEngine()
    monkeypatch.setattr(ask.Engine, "open", lambda directory, **_: engine)
    return engine


def invoke(command, *arguments: object):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def test_a_second_question_encodes_nothing(tmp_path, engine) -> None:
    scan = write_head_ct(tmp_path / "scan")
    invoke(ask.command, scan, "Why?")
    encoded = engine.images_encoded
    result = invoke(ask.command, scan, "And now?", "--timings")
    assert engine.images_encoded == encoded > 0
    assert "cached slices loaded in" in result.stderr


def test_no_cache_keeps_nothing_and_uses_nothing(tmp_path, engine) -> None:
    scan = write_head_ct(tmp_path / "scan")
    for _ in range(2):
        invoke(ask.command, scan, "Why?", "--no-cache")
    assert engine.images_encoded == 40
    assert ScanCache().entries() == []


def test_the_size_is_an_option_or_a_variable(tmp_path, monkeypatch) -> None:
    scan = write_head_ct(tmp_path / "scan")
    invoke(ask.command, scan, "Why?", "--cache-size", "0.0000001")
    assert ScanCache().entries() == []
    monkeypatch.setenv("EDGE_MEDGEMMA_CACHE_GB", "0.000002")
    invoke(ask.command, scan, "Why?")
    assert 0 < sum(entry.bytes for entry in ScanCache().entries()) <= 2000


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    result = invoke(ask.command, write_head_ct(tmp_path / "scan"), "Why?")
    lines = [line for line in result.stderr.splitlines() if "scan cache" in line]
    assert len(lines) == 1 and lines[0].startswith("note: ")


@pytest.fixture
def one_file_of_each_kind(tmp_path) -> dict[str, Path]:
    """A file in each place and in an engine's devices, the second one in a folder of its own."""
    folders = {place.value: place.folder for place in Place} | {"devices": tmp_path / "e/devices"}
    files = {}
    for kind, folder in folders.items():
        is_folder = kind in ("synthetic-engines", "devices")
        files[kind] = folder / ("a/b.data" if is_folder else "a.json")
        files[kind].parent.mkdir(parents=True)
        files[kind].write_bytes(bytes(1000))
    return files


@pytest.mark.command("cache list")
def test_every_kind_is_listed_with_its_place(tmp_path, one_file_of_each_kind) -> None:
    document = json.loads(invoke(cli, "cache", "list", "--json", "--engine", tmp_path / "e").stdout)
    assert_valid(document, "cache")
    assert document["folder"] == str(tmp_path / "cache" / "edge-medgemma")
    assert document["bytes"] == 1000 * len(one_file_of_each_kind)
    for place in document["places"]:
        file = one_file_of_each_kind[place["kind"]]
        assert file.is_relative_to(place["path"])
        assert (place["files"], place["bytes"]) == (1, 1000)
    table = invoke(cli, "cache", "list").stdout
    assert all(place.value in table for place in Place)
    assert "devices" not in table and "7 files, 0.0 MB in all" in table


@pytest.mark.command("cache clear")
@pytest.mark.parametrize("kind", [*Place, "devices"])
def test_each_kind_is_cleared_alone(tmp_path, one_file_of_each_kind, kind) -> None:
    arguments = ["cache", "clear", "--engine", tmp_path / "e", "--what", kind]
    assert "1 file deleted" in invoke(cli, *arguments).stdout
    gone = {name for name, file in one_file_of_each_kind.items() if not file.exists()}
    assert gone == {kind}


def test_clear_takes_everything_but_an_engines_own(one_file_of_each_kind) -> None:
    assert "7 files deleted" in invoke(cli, "cache", "clear").stdout
    assert [kind for kind, file in one_file_of_each_kind.items() if file.exists()] == ["devices"]
    assert "0 files, 0.0 MB in all" in invoke(cli, "cache", "list").stdout


def test_clear_by_age(one_file_of_each_kind) -> None:
    os.utime(one_file_of_each_kind["scans"], (1, 1))
    assert "1 file deleted" in invoke(cli, "cache", "clear", "--older-than", "2").stdout
    assert not one_file_of_each_kind["scans"].exists()


def test_devices_of_no_engine_are_a_usage_error() -> None:
    result = CliRunner().invoke(cli, ["cache", "clear", "--what", "devices"])
    assert result.exit_code == 2 and "--engine" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s ago"), (61, "1 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_ages_are_whole_units(seconds, words) -> None:
    assert cache.age(seconds) == words
