"""Tests of the runtime run where neither torch nor the extra `export` is installed."""

import sys
from importlib import import_module

import pytest
from support.device_imports import REFERENCE_MODULES, HidingFinder

NEED_EXPORT = [
    "backends/cuda/test_session.py",
    "backends/onnxruntime/test_fused_graph.py",
    "backends/tensorrt/test_cache_axes.py",
    "backends/tensorrt/test_library.py",
    "backends/tensorrt/test_plan_files.py",
    "backends/tensorrt/test_plan_runner.py",
    "backends/test_onnx_writer.py",
    "kernels/test_decode_attention.py",
    "kernels/test_prefill_attention.py",
    "profiling/test_roofline.py",
]
"""Tests that export another engine than the committed one, or write graphs with `onnx`."""

try:
    import_module("onnx_ir")
except ModuleNotFoundError:
    collect_ignore = NEED_EXPORT


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import of torch or transformers fails here, as on a device."""
    monkeypatch.setattr(sys, "meta_path", [HidingFinder(REFERENCE_MODULES), *sys.meta_path])
    for name in REFERENCE_MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
