"""The two fixtures that everything stands on: a tiny random checkpoint and its engine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.tiny_checkpoint import build_tiny_checkpoint

from edge_medgemma.runtime.generation.engine import Engine

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Gemma3ForConditionalGeneration with the real structure."""
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def tiny_engine_directory(tiny_checkpoint: Path) -> Path:
    """Its float32 engine."""
    from edge_medgemma.export.checkpoint.loader import open_checkpoint
    from edge_medgemma.export.engine import export_engine

    directory = tiny_checkpoint.parent / "engine"
    export_engine(open_checkpoint(str(tiny_checkpoint)), directory, precision="fp32", block_size=32)
    return directory


@pytest.fixture(scope="session")
def tiny_tensorrt_directory(tiny_checkpoint: Path) -> Path:
    """Its engine for TensorRT in float16, with golden outputs; the CPU runs it too."""
    from edge_medgemma.export.checkpoint.loader import open_checkpoint
    from edge_medgemma.export.reference_outputs import export_with_golden
    from edge_medgemma.export.target import Target

    directory = tiny_checkpoint.parent / "tensorrt"
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    target = Target("trt", "fp16")
    export_with_golden(checkpoint, directory, precision="fp16", block_size=32, target=target)
    return directory


@pytest.fixture(scope="session")
def tiny_engine(tiny_engine_directory: Path) -> Iterator[Engine]:
    """The engine, opened."""
    with Engine.open(tiny_engine_directory, threads=2) as engine:
        yield engine
