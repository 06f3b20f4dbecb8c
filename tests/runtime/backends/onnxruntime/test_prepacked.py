"""Packed weights: used when they are those of this machine and engine, made again when not."""

import errno
import json
import logging
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from support.decoder_logits import decoder_logits

from edge_medgemma.runtime.backends.onnxruntime import custom_ops as operators
from edge_medgemma.runtime.backends.onnxruntime import prepacked
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.manifest import Manifest, load_manifest

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def pack_any_size(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(operators, "ort_custom_ops", None)  # with it nothing is packed
    monkeypatch.setattr(prepacked, "MINIMUM_BYTES", 0)
    caplog.set_level(logging.INFO, prepacked.LOG.name)


@pytest.fixture
def engine(tmp_path: Path) -> tuple[Path, Manifest]:
    folder = tmp_path / "engine"
    shutil.copytree(BUILTIN_ENGINE, folder)
    return folder, load_manifest(folder)


def _logits(engine: tuple[Path, Manifest], *, is_packed: bool = True) -> np.ndarray:
    return decoder_logits(*engine, 8, is_packed=is_packed)


def _packed_folder(engine: tuple[Path, Manifest]) -> Path:
    (folder,) = (engine[0] / "devices").glob("onnxruntime-*")
    return folder


def test_packed_weights_give_the_same_logits_and_are_made_once(engine, caplog) -> None:
    expected = _logits(engine, is_packed=False)
    assert not (engine[0] / "devices").exists()
    for _ in range(2):
        np.testing.assert_array_equal(_logits(engine), expected)
    assert caplog.text.count("packing weights") == 1
    assert sorted(p.name for p in _packed_folder(engine).iterdir()) == [
        "decoder.data",
        "decoder.onnx",
        "record.json",
    ]


def _cut_short(folder: Path) -> None:
    os.truncate(folder / "decoder.data", 1000)


def _alter(folder: Path) -> None:
    with (folder / "decoder.data").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def _alter_record(key: str):
    def alter(folder: Path) -> None:
        path = folder / "record.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: "other"}))

    return alter


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut_short, "changed or cut short"),
        (_alter, "changed or cut short"),
        (lambda folder: (folder / "decoder.onnx").unlink(), "is missing"),
        (lambda folder: (folder / "record.json").write_text("[1"), "cannot be read"),
        (_alter_record("library"), "another library"),
        (_alter_record("processor"), "another processor"),
        (_alter_record("engine"), "another engine"),
    ],
)
def test_what_does_not_fit_is_made_again_with_the_reason(engine, caplog, damage, reason) -> None:
    expected = _logits(engine)
    damage(_packed_folder(engine))
    caplog.clear()
    np.testing.assert_array_equal(_logits(engine), expected)
    assert reason in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(_logits(engine), expected)
    assert not caplog.text


def test_a_full_disk_costs_time_only(engine, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _logits(engine, is_packed=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12, 10**6))
    np.testing.assert_array_equal(_logits(engine), expected)
    assert "weights are not packed" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr(prepacked, "MINIMUM_BYTES", 0)

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert prepacked.prepacked_decoder(*engine, fail) == engine[0] / "decoder.onnx"
    assert "No space left" in caplog.text
    assert [p.name for p in (engine[0] / "devices").iterdir() if p.is_dir()] == []


def test_a_read_only_engine_packs_into_the_users_cache_or_not_at_all(
    engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _logits(engine, is_packed=False)
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    (engine[0] / "devices").write_text(
        "a file where a folder should be: not writable for root either"
    )
    for _ in range(2):
        np.testing.assert_array_equal(_logits(engine), expected)
    assert len(list(cache.rglob("decoder.data"))) == 1
    shutil.rmtree(cache)
    cache.write_text("no folder")
    np.testing.assert_array_equal(_logits(engine), expected)


def test_two_at_once_do_not_write_twice(engine) -> None:
    def never(path: Path) -> None:
        raise AssertionError

    def save(path: Path) -> None:
        path.write_bytes(b"graph")
        path.with_suffix(".data").write_bytes(b"data")
        assert prepacked.prepacked_decoder(*engine, never) == engine[0] / "decoder.onnx"

    assert prepacked.prepacked_decoder(*engine, save).parent == _packed_folder(engine)


def test_what_does_not_load_is_removed(engine, caplog) -> None:
    def save(path: Path) -> None:
        path.write_bytes(b"no graph")
        path.with_suffix(".data").write_bytes(b"data")

    prepacked.prepacked_decoder(*engine, save)
    expected = _logits(engine, is_packed=False)
    np.testing.assert_array_equal(_logits(engine), expected)
    assert "did not load" in caplog.text
    assert not list((engine[0] / "devices").glob("onnxruntime-*"))
