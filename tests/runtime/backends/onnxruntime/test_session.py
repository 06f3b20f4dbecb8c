import sys
from pathlib import Path

import pytest

from edge_medgemma.runtime.backends.onnxruntime.session import open_session
from edge_medgemma.runtime.errors import DependencyError, EngineError


def test_without_onnxruntime_the_extras_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"\.\[cpu\].*\.\[gpu\]"):
        open_session(tmp_path / "decoder.onnx", None)


def test_a_graph_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "decoder.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(EngineError, match=r"decoder\.onnx' does not load") as caught:
        open_session(path, None)
    assert "\n" not in str(caught.value)
