"""Engines that a library of the CPU is tried with."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder's place for verdicts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edge-medgemma" / "self-tests"


@pytest.fixture
def altered_engine(tiny_engine_directory: Path, tmp_path: Path) -> Path:
    """The tiny engine with another activation in its vision graph."""
    onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
    directory = Path(shutil.copytree(tiny_engine_directory, tmp_path / "altered"))
    graph = onnx.load(directory / "vision.onnx", load_external_data=False)
    for node in graph.graph.node:
        if node.op_type == "Gelu":
            node.op_type = "Sigmoid"
            del node.attribute[:]
    (directory / "vision.onnx").write_bytes(graph.SerializeToString())
    return directory


@pytest.fixture(scope="session")
def int8_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random engine whose vision tower is in int8."""
    pytest.importorskip("onnx_ir", reason="the extra 'export' is not installed")
    from edge_medgemma.export.checkpoint.synthetic import synthetic_checkpoint
    from edge_medgemma.export.engine import export_engine
    from edge_medgemma.export.synthetic_ranges import synthetic_vision_ranges

    checkpoint = synthetic_checkpoint("tiny")
    folder = tmp_path_factory.mktemp("int8")
    limits = synthetic_vision_ranges(checkpoint, folder)
    export_engine(
        checkpoint, folder / "engine", precision="int8", block_size=32, vision_limits=limits
    )
    return folder / "engine"
