"""The decoder's kernels give what onnxruntime's operators give, and stand back where they do not."""

from pathlib import Path

import numpy as np
import pytest
from support.decoder_logits import decoder_logits
from support.kernel_levels import level  # noqa: F401 - each test runs at every level
from support.linear_layers import drawn, rounded

from edge_medgemma.runtime.backends.onnxruntime import custom_ops as operators
from edge_medgemma.runtime.backends.onnxruntime import decoder as ort_decoder
from edge_medgemma.runtime.backends.onnxruntime.custom_ops import (
    custom_ops_absence,
    custom_ops_in_use,
    custom_ops_library,
)
from edge_medgemma.runtime.backends.onnxruntime.fused_graph import fused_graph
from edge_medgemma.runtime.backends.onnxruntime.session import open_session
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.manifest import load_manifest

needs_kernel = pytest.mark.skipif(
    operators.cpu_kernels is None or not operators.cpu_kernels.claimed_levels(),
    reason="this processor, or installation, has no kernels for the decoder",
)
LIBRARY = operators.cpu_kernels and operators.cpu_kernels.__file__
"""Not `custom_ops_library`, which is None where a kernel is wrong."""


@needs_kernel
def test_sessions_that_ask_for_it_take_it(tmp_path: Path):
    model, _ = drawn(256, 40, 4, 32)
    path = tmp_path / "decoder.onnx"
    path.write_bytes(model)
    wrong = {"x": np.zeros((1, 128), np.float32)}
    with pytest.raises(Exception, match="last axis is not K"):  # the kernel's own words
        open_session(path, 1, model=fused_graph(path), library=LIBRARY).run(None, wrong)
    with pytest.raises(Exception, match="dimension mismatch"):
        open_session(path, 1).run(None, wrong)


@needs_kernel
def test_what_this_processor_can_is_in_use():
    assert custom_ops_absence() is None
    words = f"with the kernels for {operators.kernel_level()}"
    assert (custom_ops_in_use(), custom_ops_library()) == (words, LIBRARY)


@needs_kernel
@pytest.mark.parametrize(
    ("name", "which", "order", "words"),
    [
        ("_product", 4, np.inf, "1.0e-02"),
        ("_product", 8, np.inf, "1.0e-02"),
        ("_gated_product", 1, np.inf, "1.0e-02"),
        ("_gated_product", 23, np.inf, "1.0e-02"),
        ("_attended", operators._PREFILL, None, "1."),
        ("_attended", operators._DECODE, np.inf, "1.0e-02"),
        ("_attended", operators._FLOAT_DECODE, np.inf, "1.0e-02"),
        ("_residual_norms", 1, np.inf, "1.0e-02"),
        ("_rotated_heads", 23, np.inf, "1.0e-02"),
    ],
)
def test_a_kernel_that_is_wrong_is_found(name, which, order, words, monkeypatch):
    compute = getattr(operators, name)

    def one_number_off(*args):
        result = compute(*args).ravel()
        if args[1] == which and args[-1] is not None:
            result[-1] += 0.01 * np.linalg.norm(result, order)
        return result

    monkeypatch.setattr(operators, name, one_number_off)
    assert f"differs from onnxruntime by {words}" in str(operators.operators_fault(LIBRARY))


@needs_kernel
def test_kernels_as_they_are_pass():
    assert operators.operators_fault(LIBRARY) is None
    assert operators.operators_fault(None) is None


@needs_kernel
def test_a_library_without_the_operator_is_not_used(tmp_path):
    broken = tmp_path / "empty.so"
    broken.write_bytes(b"")
    assert "not taken by onnxruntime" in str(operators.operators_fault(str(broken)))


@needs_kernel
@pytest.mark.parametrize(("tokens", "limit"), [(8, 1e-2), (60, 5e-2)], ids=["few", "many"])
def test_a_decoder_says_with_them_what_it_says_without(
    tokens, limit, monkeypatch, caplog, tmp_path
):
    """A sum in another order, or attention in bfloat16, may round a layer's input otherwise."""
    manifest = load_manifest(BUILTIN_ENGINE)
    opened_with = []
    registered = ort_decoder.open_session

    def noted(path, threads, **options):
        opened_with.append(options.get("library"))
        return registered(path, threads, **options)

    monkeypatch.setattr(ort_decoder, "open_session", noted)
    given = decoder_logits(BUILTIN_ENGINE, manifest, tokens)
    broken = tmp_path / "empty.so"
    broken.write_bytes(b"")
    monkeypatch.setattr(ort_decoder, "custom_ops_library", lambda: str(broken))
    expected = decoder_logits(BUILTIN_ENGINE, manifest, tokens)
    assert opened_with == [LIBRARY, str(broken), None]
    assert "runs without its kernels" in caplog.text
    difference = np.abs(given - expected) / np.abs(expected).max()
    words = f"max {difference.max():.1e}, mean {difference.mean():.1e}"
    assert 0 < difference.max() < limit, words


def test_without_them_onnxruntime_computes_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(operators, "level_absence", lambda: "no C compiler")
    assert "no C compiler" in str(custom_ops_absence())
    model, weights = drawn(256, 40, 4, 32)
    (tmp_path / "decoder.onnx").write_bytes(model)
    x = np.random.default_rng(0).standard_normal((2, 256), np.float32)
    given = open_session(tmp_path / "decoder.onnx", 1).run(None, {"x": x})[0]
    np.testing.assert_allclose(given, rounded(x, 32) @ weights.T, rtol=0, atol=1e-3)
