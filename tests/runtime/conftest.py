"""Tests of the runtime run where neither torch nor the extra `export` is installed."""

import sys
from importlib.util import find_spec

import pytest

NEED_EXPORT = [
    "backends/cuda/test_session.py",
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

if find_spec("onnx_ir") is None:
    collect_ignore = NEED_EXPORT


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import of torch or transformers fails here, as on a device."""
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
