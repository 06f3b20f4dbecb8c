import json
import os

import pytest
from click.testing import CliRunner
from support.fake_engine import FakeEngine
from support.synthetic_series import write_head_ct

from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.commands import ask, cache
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


@pytest.mark.command("cache list")
@pytest.mark.command("cache clear")
def test_list_and_clear(tmp_path, engine) -> None:
    assert "0 files, 0.0 MB in all" in invoke(cli, "cache", "list").stdout
    invoke(ask.command, write_head_ct(tmp_path / "scan", lesion=range(4, 8)), "Why?")
    entries = ScanCache().entries()
    table = invoke(cli, "cache", "list").stdout
    for words in ("features", "prefix", engine.manifest.sha256[:12], f"{len(entries)} files"):
        assert words in table
    document = json.loads(invoke(cli, "cache", "list", "--json").stdout)
    assert document["bytes"] == sum(entry.bytes for entry in entries)
    assert {f["engine_sha256"] for f in document["files"]} == {engine.manifest.sha256}
    os.utime(entries[0].path, (1, 1))
    assert "1 file deleted" in invoke(cli, "cache", "clear", "--older-than", "2").stdout
    assert f"{len(entries) - 1} files deleted" in invoke(cli, "cache", "clear").stdout
    assert ScanCache().entries() == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s ago"), (61, "1 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_ages_are_whole_units(seconds, words) -> None:
    assert cache.age(seconds) == words
