"""Run parts of a model once each in one thread, on the emulated processor, between marks.

    works.py [LEVEL]    with our kernels of that level; without, with onnxruntime's

Prints the name of each part. The plugin `instructions.c` prints, at each mark, how many instructions
were run by then: first before a part, then after it.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime

from edge_medgemma.runtime.backends.onnx_writer import (
    Value,
    blocks_product_model,
    one_node_model,
)
from edge_medgemma.runtime.backends.onnxruntime.stored_scales import with_stored_scales
from edge_medgemma.runtime.bfloat16 import rounded_to_bfloat16
from edge_medgemma.runtime.kernels import cpu_kernels

INPUTS, OUTPUTS, BLOCK = 2560, 2560, 64
HEADS, KEY_HEADS, HEAD_SIZE, KEYS = 4, 2, 256, 1024
VISION_TOKENS, VISION_HEADS, VISION_HEAD_SIZE = 512, 2, 72
VISION_INPUTS, VISION_OUTPUTS = 1152, 1152

Feeds = dict[str, np.ndarray]


def linear(rows: int, bits: int) -> tuple[bytes, Feeds]:
    """A linear layer of the decoder, weights in blocks."""
    draw = np.random.default_rng(bits)
    shape = (OUTPUTS, INPUTS // BLOCK)
    weights = draw.integers(0, 256, (*shape, BLOCK * bits // 8), np.uint8)
    model = blocks_product_model(weights, rounded_to_bfloat16(draw.random(shape, np.float32)), bits)
    return model, {"x": draw.standard_normal((rows, INPUTS), np.float32)}


def vision_linear() -> tuple[bytes, Feeds]:
    """The product within onnxruntime's quantised linear layer, without its scales."""
    draw = np.random.default_rng(1)
    weights = draw.integers(-127, 128, (VISION_INPUTS, VISION_OUTPUTS), np.int8)
    x = draw.integers(0, 256, (VISION_TOKENS, VISION_INPUTS), np.uint8)
    y = {"y": Value("int32")}
    return one_node_model("MatMulInteger", "", {"x": Value("uint8")}, {"w": weights}, y, {}), {
        "x": x
    }


def vision_attention() -> tuple[bytes, Feeds]:
    """Every token of a slice to every other, in float32."""
    draw = np.random.default_rng(2)
    names = ("query", "key", "value")
    shape = (1, VISION_TOKENS, VISION_HEADS * VISION_HEAD_SIZE)
    model = one_node_model(
        "MultiHeadAttention",
        "com.microsoft",
        {name: Value("float32", 3) for name in names},
        {},
        {"attended": Value("float32", 3)},
        {"num_heads": VISION_HEADS},
    )
    return model, {name: draw.standard_normal(shape, np.float32) for name in names}


def decoder_attention(rows: int, cache: str) -> tuple[bytes, Feeds]:
    """New rows to caches: of prefill in float32, of decode in int8."""
    draw = np.random.default_rng(3)
    shape = (1, KEY_HEADS, KEYS, HEAD_SIZE)
    kinds = ("key", "value")
    attributes: dict[str, int | str] = {
        "num_heads": HEADS,
        "kv_num_heads": KEY_HEADS,
        "causal": 0,
        "local_window_size": -1,
    }
    feeds: Feeds = {
        "queries": draw.standard_normal((1, rows, HEADS * HEAD_SIZE), np.float32),
        "keys": draw.standard_normal((1, rows, KEY_HEADS * HEAD_SIZE), np.float32),
        "values": draw.standard_normal((1, rows, KEY_HEADS * HEAD_SIZE), np.float32),
        **{f"past_{kind}": draw.integers(-127, 128, shape).astype(cache) for kind in kinds},
        "last": np.array([KEYS - 1], np.int32),
        "total": np.array(KEYS, np.int32),
        "mask": np.zeros((1, 1, rows, KEYS), np.float32),
    }
    inputs: dict[str, Value | None] = {
        name: Value(array.dtype.name, array.ndim) for name, array in feeds.items()
    }
    mask = inputs.pop("mask")
    inputs |= {"cos": None, "sin": None, "positions": None, "mask": mask}
    if cache == "int8":
        scales = {
            f"{kind}_scale": np.full(KEY_HEADS * HEAD_SIZE, 0.01, np.float32) for kind in kinds
        }
        inputs |= {"sink": None, **{name: Value("float32", 1) for name in scales}}
        feeds |= scales
        attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
        attributes["kv_cache_bit_width"] = 8
    outputs = {"attended": Value("float32", 3)}
    outputs |= {f"present_{kind}": Value(cache, 4) for kind in kinds}
    return one_node_model(
        "GroupQueryAttention", "com.microsoft", inputs, {}, outputs, attributes
    ), feeds


def our_vision_linear() -> Callable[[], object]:
    """The same as `vision_linear`, and the scales."""
    draw = np.random.default_rng(1)
    threads = cpu_kernels.vision_threads(1)
    shape = VISION_TOKENS, VISION_INPUTS, VISION_OUTPUTS
    sizes = cpu_kernels.vision_sizes(threads, *shape)
    rows, packed = (np.zeros(size, np.uint8) for size in sizes)
    weights = draw.integers(-127, 128, shape[1:], np.int8)
    cpu_kernels.vision_pack(threads, weights, *shape[1:], packed)
    factors = [np.ones(VISION_OUTPUTS, np.float32)] * 2
    out = np.empty((VISION_TOKENS, VISION_OUTPUTS), np.float32)
    return partial(cpu_kernels.vision_linear, threads, rows, packed, *factors, *shape, 0, out, 1.0)


def our_vision_attention() -> Callable[[], object]:
    """The same as `vision_attention`."""
    threads = cpu_kernels.vision_threads(1)
    shape = VISION_TOKENS, VISION_HEADS, VISION_HEAD_SIZE
    joined = np.random.default_rng(2).standard_normal((shape[0], 3, *shape[1:]), np.float32)
    out = np.empty(shape, np.float32)
    packed = np.empty(cpu_kernels.vision_packed_words(*shape), np.uint32)
    return partial(cpu_kernels.vision_attend, threads, joined, *shape, out, packed)


NODES = {
    "prefill linear, 256 rows, 4 bits": partial(linear, 256, 4),
    "prefill linear, 256 rows, 8 bits": partial(linear, 256, 8),
    "decode linear, 4 bits": partial(linear, 1, 4),
    "decode linear, 8 bits": partial(linear, 1, 8),
    "prefill attention, 64 rows": partial(decoder_attention, 64, "float32"),
    "decode attention": partial(decoder_attention, 1, "int8"),
    "vision linear, int8": vision_linear,
    "vision attention": vision_attention,
}

OURS = {"vision linear, int8": our_vision_linear, "vision attention": our_vision_attention}
"""Parts that our kernels compute without onnxruntime."""


def mark() -> None:
    """Let the plugin print its count."""
    os.getpriority(os.PRIO_PROCESS, 0)


def bound(session: Any, feeds: Feeds) -> Any:
    """Inputs and outputs in place: caches are read and written where they lie."""
    binding = session.io_binding()
    values = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()
    }
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        past = values.get(output.name.replace("present", "past"))
        if past is None:
            binding.bind_output(output.name, "cpu")
        else:
            binding.bind_ortvalue_output(output.name, past)
    return binding


def node_run(options: Any, model: bytes, feeds: Feeds) -> Callable[[], object]:
    """What runs a model."""
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return partial(session.run_with_iobinding, bound(session, feeds))


def main() -> None:
    """Run every part twice; the second run is between marks."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    is_ours = len(sys.argv) > 1
    if is_ours:
        cpu_kernels.use_level(sys.argv[1])
        options.register_custom_ops_library(cpu_kernels.__file__)
    for name, make in NODES.items():
        if is_ours and name in OURS:
            run = OURS[name]()
        else:
            model, feeds = make()
            run = node_run(options, with_stored_scales(model) if is_ours else model, feeds)
        run()
        mark()
        run()
        mark()
        print(name, flush=True)


if __name__ == "__main__":
    main()
