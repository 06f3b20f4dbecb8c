"""The compiled kernels on real weights and what really comes into them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx.external_data_helper import load_external_data_for_tensor
from real_weights.bounds import KERNEL_DIFFERENCE
from real_weights.table import add_row

from edge_medgemma.runtime.backends.onnx_writer import blocks_product_model
from edge_medgemma.runtime.backends.onnxruntime.custom_ops import cpu_kernels
from edge_medgemma.runtime.backends.onnxruntime.stored_scales import with_stored_scales

needs_kernel = pytest.mark.skipif(
    cpu_kernels is None or not cpu_kernels.claimed_levels(),
    reason="this processor, or installation, has no kernels for the decoder",
)
LAYERS = (0, 5, 17)
INPUTS = {
    "self_attn.qkv_proj": "self_attn.q_proj",
    "self_attn.qk_proj": "self_attn.q_proj",
    "self_attn.v_proj": "self_attn.q_proj",
    "self_attn.o_proj": "self_attn.o_proj",
    "mlp.gate_up_proj": "mlp.up_proj",
    "mlp.down_proj": "mlp.down_proj",
}
"""Linear layer of an engine, whatever its precision: one of transformers' that reads the same."""
LINEAR_LAYERS = {"int8": 4, "int4": 5}
"""Of each decoder layer of an engine: values have 8 bits in one of int4, and a matrix of their own."""


@pytest.fixture(scope="module")
def activations(checkpoint: Path, ids: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """Inputs [tokens, K] of the linear layers of some decoder layers, over the text."""
    import torch
    from transformers import Gemma3ForConditionalGeneration

    model = Gemma3ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    found: dict[str, NDArray[np.float32]] = {}

    def keep(name: str) -> Callable[[Any, Any], None]:
        return lambda module, inputs: found.update({name: inputs[0][0].numpy().copy()})

    for layer in LAYERS:
        for ours, theirs in INPUTS.items():
            module = model.model.language_model.layers[layer].get_submodule(theirs)
            module.register_forward_pre_hook(keep(f"text.layers.{layer}.{ours}"))
    with torch.inference_mode():
        model(torch.from_numpy(ids[None]), logits_to_keep=1)
    return found


def session(model: bytes, library: str | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    if library:
        options.register_custom_ops_library(library)
        model = with_stored_scales(model)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@needs_kernel
@pytest.mark.parametrize("precision", LINEAR_LAYERS)
def test_linear_layers(
    precision: str,
    engines: Callable[[str], Path],
    activations: dict[str, NDArray[np.float32]],
) -> None:
    directory = engines(precision)
    graph = onnx.load(directory / "decoder.onnx", load_external_data=False).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}

    def read(name: str) -> NDArray[Any]:
        load_external_data_for_tensor(stored[name], str(directory))
        return onnx.numpy_helper.to_array(stored[name])

    worst, names = 0.0, [name for name in activations if f"{name}.blocks" in stored]
    assert len(names) == LINEAR_LAYERS[precision] * len(LAYERS)
    for name in names:
        x, blocks = activations[name], read(f"{name}.blocks")
        bits = 8 * blocks.size // (len(blocks) * x.shape[-1])
        scales = read(f"{name}.scales").astype(np.float32)
        model = blocks_product_model(blocks, scales, bits)
        own, kernel = session(model, None), session(model, cpu_kernels.__file__)
        for rows in (x, x[-1:]):
            expected, given = own.run(None, {"x": rows})[0], kernel.run(None, {"x": rows})[0]
            worst = max(worst, float(np.abs(given - expected).max() / np.abs(expected).max()))
    add_row(f"{precision} kernel against onnxruntime, {len(names)} layers", f"{worst:.1e} of the largest")  # fmt: skip
    assert 0 < worst < KERNEL_DIFFERENCE
