"""The calibrated int8 cache in onnxruntime's own attention, on keys and values of a real prompt."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edge_medgemma.calibration.passes.layer_runner import GraphStages, StageSession
from edge_medgemma.calibration.prompts import build_prompts, feeds_of
from edge_medgemma.runtime.generation.embedding import Embedding

LAYER = 0


@pytest.fixture
def layer_values(tiny_engine, calibration):
    """Queries, keys and values [1, S, heads * D] of a layer on a held-out prompt."""
    slices = calibration.held_out()
    (prompt, *_) = build_prompts(tiny_engine, slices, range(len(slices)))
    features = np.concatenate([tiny_engine.encode_images(one.pixels[None]) for one in slices])
    embedding = Embedding(tiny_engine.directory, tiny_engine.manifest)
    feeds = feeds_of(prompt, tiny_engine, embedding, features)
    text = tiny_engine.manifest.text
    empty = np.zeros((1, text.kv_heads, len(prompt.ids), text.head_dim), np.float32)
    feeds |= {f"past_{kind}.{LAYER}": empty for kind in ("key", "value")}
    stages = GraphStages(tiny_engine.directory, "decoder")
    stage = stages.stage(LAYER)
    prefix = f"text.layers.{LAYER}.self_attn"
    names = [f"{prefix}.q_norm.rotated", f"{prefix}.k_norm.rotated", f"{prefix}.qkv.2"]
    values = StageSession(stage, stages.directory, 1).run(feeds, names)
    return tuple(values[name] for name in names)


def attention(text, length, quantised):
    """A one-node model of GroupQueryAttention, its cache float32 or int8 per channel."""
    cache_type = TensorProto.INT8 if quantised else TensorProto.FLOAT
    inputs = ["q", "k", "v", "past_key", "past_value", "last", "total", "", "", "", "mask"]
    attributes = {"num_heads": text.heads, "kv_num_heads": text.kv_heads, "causal": 0}
    float_inputs = {
        "q": [1, length, text.heads * text.head_dim],
        "k": [1, length, text.kv_heads * text.head_dim],
        "v": [1, length, text.kv_heads * text.head_dim],
        "mask": [1, 1, length, length],
    }
    if quantised:
        inputs += ["", "k_scale", "v_scale"]
        attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
        attributes["kv_cache_bit_width"] = 8
        width = [text.kv_heads * text.head_dim]
        float_inputs |= {"k_scale": width, "v_scale": width}
    outputs = ["y", "present_key", "present_value"]
    node = helper.make_node(
        "GroupQueryAttention", inputs, outputs, domain="com.microsoft", **attributes
    )
    cache = [1, text.kv_heads, length, text.head_dim]
    make = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "attention",
        [
            *(make(name, TensorProto.FLOAT, shape) for name, shape in float_inputs.items()),
            *(make(name, cache_type, cache) for name in ("past_key", "past_value")),
            make("last", TensorProto.INT32, [1]),
            make("total", TensorProto.INT32, []),
        ],
        [make("y", TensorProto.FLOAT, None), *(make(o, cache_type, None) for o in outputs[1:])],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString())


def test_an_int8_cache_with_these_scales_stays_close(tiny_engine, calibration, layer_values):
    text = tiny_engine.manifest.text
    query, key, value = layer_values
    length = query.shape[1]
    feeds = {
        "q": query,
        "k": key,
        "v": value,
        "mask": np.zeros((1, 1, length, length), np.float32),
        "last": np.array([length - 1], np.int32),
        "total": np.array(length, np.int32),
    }
    outputs = []
    for quantised in (False, True):
        empty = np.zeros(
            (1, text.kv_heads, length, text.head_dim), np.int8 if quantised else np.float32
        )
        own = feeds | {"past_key": empty, "past_value": empty}
        if quantised:
            own |= dict(zip(("k_scale", "v_scale"), calibration.cache_scales(LAYER), strict=True))
        outputs.append(attention(text, length, quantised).run(["y"], own)[0])
    exact, rounded = outputs
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    print(f"relative error {error:.1e}")
    assert 1e-5 < error < 0.02


def test_there_is_a_step_for_every_channel(tiny_engine, calibration):
    text = tiny_engine.manifest.text
    for layer in range(text.layers):
        for scale in calibration.cache_scales(layer):
            assert scale.shape == (text.kv_heads * text.head_dim,)
            assert (scale > 0).all()
