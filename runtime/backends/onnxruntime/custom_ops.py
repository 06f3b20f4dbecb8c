"""Operators of the decoder, compiled here, in place of onnxruntime's.

onnxruntime rearranges the weights of MatMulNBits at every start and multiplies many rows at half of
what the processor's 8-bit products allow. The linear kernel reads them as they lie in the engine's
file; its numbers are onnxruntime's but for the order of float32 sums.

Norms of a decoder's layers are joined with the sums and rotations beside them: of one row, most of their
time is spent between operators.

It computes attention in float32, with all scores in memory. Scores of 48 rows and more are products
of int16 here, closer to float32 than bfloat16, the type that the model was trained in (and that of
AMX tiles), and never leave the cache. Decode reads its caches at nearly the bandwidth of memory; its
numbers are onnxruntime's but for the order of float32 sums. Other attention is onnxruntime's.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.backends.onnx_writer import (
    Value,
    blocks_product_model,
    one_node_model,
)
from edge_medgemma.runtime.backends.onnxruntime.fused_graph import (
    HEAD_NORM,
    RESIDUAL_NORM,
)
from edge_medgemma.runtime.backends.onnxruntime.stored_scales import (
    GATED_PRODUCT,
    PRODUCT,
    with_stored_scales,
)
from edge_medgemma.runtime.bfloat16 import rounded_to_bfloat16
from edge_medgemma.runtime.kernels.level import (
    KERNELS,
    ONNXRUNTIME,
    cpu_kernels,
    kernel_level,
    level_absence,
)
from edge_medgemma.runtime.trial import step

LARGEST_DIFFERENCE = 1e-4
"""Largest difference of products and decode attention, relative to the largest number. Sums in another
order leave 1e-6; a wrong weight leaves 1e-2."""

LARGEST_PRODUCT_DIFFERENCE = 3e-2 if platform.machine() == "aarch64" else LARGEST_DIFFERENCE
"""Of linear layers. On Arm onnxruntime rounds inputs with one scale for a whole row, which leaves 8e-3;
a single wrong weight hides in that, wrong instructions do not."""

LARGEST_PREFILL_DIFFERENCE = 2**-7
"""Norm of the difference of prefill attention, relative to the norm. int16 leaves 3e-4, tiles of
bfloat16 3e-3; one wrong key leaves 1e-1."""

_INPUTS, _OUTPUTS, _BLOCK_SIZE = 256, 45, 128
_ROWS = (1, 23)
"""The kernel has one path for few rows and another for many."""
_GATED_OUTPUTS = 2 * _OUTPUTS

_NORM_SIZE = 70
"""Half of it, too, is no multiple of a vector."""
_EPSILON = 1e-6

_HEADS, _KEY_HEADS = 6, 2
_SPARE_ROWS = 10

_HEAD_NORM_INPUTS = {"product": 3, "query_weight": 1, "key_weight": 1, "cosines": 2, "sines": 2}
"""With their axes."""


@dataclass(frozen=True)
class _Attention:
    """`queries` rows that meet `keys` rows of caches, their own among them."""

    queries: int
    keys: int
    head_size: int
    cache: str


_PREFILL = _Attention(queries=50, keys=150, head_size=40, cache="float32")
"""More queries than are left to onnxruntime, and more than one block of keys."""

_DECODE = _Attention(queries=1, keys=600, head_size=144, cache="int8")
"""More than one span of keys; head and heads are cut into parts, the last of them smaller."""

_FLOAT_DECODE = replace(_DECODE, cache="float32")

_HIDDEN = np.float32(-1e30)
"""Added to the score of a hidden key, as in `generation.masks`."""

_CACHES = ("key", "value")


def custom_ops_absence() -> str | None:
    """The reason why custom operators are not used here; None where they are."""
    return level_absence()


def custom_ops_in_use() -> str:
    """Custom operators in use, or why none: the numbers of a decoder depend on it."""
    return custom_ops_absence() or f"with the kernels for {kernel_level()}"


def custom_ops_library() -> str | None:
    """Path of the library that onnxruntime takes them from; None where it takes its own.

    An operator of a library stands before the one of the same name in onnxruntime.
    """
    return None if custom_ops_absence() else cpu_kernels.__file__


def operators_fault(library: str | None) -> str | None:
    """Compare a library with onnxruntime's own operators on a few numbers; for a trial in a child.

    Without a library the own ones are run.

    Returns:
        What is wrong with the library, as the end of a sentence; None where nothing is.
    """
    import onnxruntime

    attempts: list[tuple[str, Callable[[str | None], NDArray[np.float32]], float, Any]] = [
        (
            f"the product of {rows} rows with weights of {bits} bits",
            partial(_product, onnxruntime, bits, rows),
            LARGEST_PRODUCT_DIFFERENCE,
            np.inf,
        )
        for bits in (4, 8)
        for rows in _ROWS
    ]
    attempts += [
        (
            f"the gated product of {rows} rows",
            partial(_gated_product, onnxruntime, rows),
            LARGEST_PRODUCT_DIFFERENCE,
            np.inf,
        )
        for rows in _ROWS
    ]
    attempts += [
        (f"{what} of {rows} rows", partial(compute, onnxruntime, rows), LARGEST_DIFFERENCE, np.inf)
        for what, compute in (("norms", _residual_norms), ("rotated heads", _rotated_heads))
        for rows in _ROWS
    ]
    for what, attention, allowed, norm in (
        ("attention of many rows", _PREFILL, LARGEST_PREFILL_DIFFERENCE, None),
        ("attention of one row", _DECODE, LARGEST_DIFFERENCE, np.inf),
        ("attention of one row in float32", _FLOAT_DECODE, LARGEST_DIFFERENCE, np.inf),
    ):
        attempts.append((what, partial(_attended, onnxruntime, attention), allowed, norm))
    for what, compute, allowed, norm in attempts:
        try:
            step(ONNXRUNTIME, what)
            expected = compute(None).ravel()
            if library is None:
                continue
            step(KERNELS, what)
            given = compute(library).ravel()
        except Exception as error:  # noqa: BLE001 onnxruntime's exceptions share no base
            return f"is not taken by onnxruntime ({str(error).splitlines()[0]})"
        difference = np.linalg.norm(given - expected, norm) / np.linalg.norm(expected, norm)
        if not difference <= allowed:
            return (
                f"differs from onnxruntime by {difference:.1e} in {what}, {allowed:.0e} is allowed"
            )
    return None


def _product(module: Any, bits: int, rows: int, library: str | None) -> NDArray[np.float32]:
    """Random rows times random weights."""
    return _multiplied(module, PRODUCT, _OUTPUTS, bits, rows, library)


def _gated_product(module: Any, rows: int, library: str | None) -> NDArray[np.float32]:
    """Without a library, onnxruntime's product with the gate in numpy."""
    if library is not None:
        return _multiplied(module, GATED_PRODUCT, _GATED_OUTPUTS, 4, rows, library)
    product = _multiplied(module, PRODUCT, _GATED_OUTPUTS, 4, rows, None)
    gate, up = np.split(product, 2, axis=-1)
    root = np.float32(np.sqrt(2 / np.pi))
    gate *= (1 + np.tanh(root * (gate + np.float32(0.044715) * gate**3))) / 2
    return gate * up


def _multiplied(
    module: Any, operator: str, outputs: int, bits: int, rows: int, library: str | None
) -> NDArray[np.float32]:
    generator = np.random.default_rng(bits)
    shape = (outputs, _INPUTS // _BLOCK_SIZE, _BLOCK_SIZE * bits // 8)
    weights = generator.integers(0, 256, shape, np.uint8)
    scales = rounded_to_bfloat16(generator.random(shape[:2], np.float32))
    model = blocks_product_model(weights, scales, bits, operator)
    x = np.random.default_rng(rows).standard_normal((rows, _INPUTS), np.float32)
    product: NDArray[np.float32] = _session(module, model, library).run(None, {"x": x})[0]
    return product


def _residual_norms(module: Any, rows: int, library: str | None) -> NDArray[np.float32]:
    """A residual plus a normed product, and the norm of that; without a library in numpy."""
    draw = np.random.default_rng(rows).standard_normal
    residual, product = draw((2, rows, _NORM_SIZE), np.float32)
    weight, following = draw((2, _NORM_SIZE), np.float32)
    if library is None:
        total = residual + _normed(product) * weight
        return np.stack([total, _normed(total) * following])
    model = one_node_model(
        RESIDUAL_NORM,
        "com.microsoft",
        {"residual": Value("float32"), "product": Value("float32")},
        {"weight": weight, "following": following},
        {"sum": Value("float32"), "normed": Value("float32")},
        {"epsilon": _EPSILON},
    )
    feeds = {"residual": residual, "product": product}
    return np.stack(_session(module, model, library).run(None, feeds))


def _rotated_heads(module: Any, rows: int, library: str | None) -> NDArray[np.float32]:
    """Queries and keys, whose heads are normed and rotated; without a library in numpy."""
    draw = np.random.default_rng(rows).standard_normal
    heads = _HEADS + _KEY_HEADS
    product = draw((rows, heads * _NORM_SIZE), np.float32)
    weights = draw((2, _NORM_SIZE), np.float32)
    angles = draw((rows, _NORM_SIZE // 2), np.float32)
    cosines, sines = np.cos(angles), np.sin(angles)
    if library is None:
        normed = _normed(product.reshape(rows, heads, _NORM_SIZE))
        normed[:, :_HEADS] *= weights[0]
        normed[:, _HEADS:] *= weights[1]
        low, high = np.split(normed, 2, axis=2)
        cosine, sine = cosines[:, None], sines[:, None]
        rotated = np.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=2)
        return rotated.reshape(rows, -1)
    model = one_node_model(
        HEAD_NORM,
        "com.microsoft",
        {name: Value("float32", axes) for name, axes in _HEAD_NORM_INPUTS.items()},
        {},
        {"queries": Value("float32", 3), "keys": Value("float32", 3)},
        {"epsilon": _EPSILON, "num_heads": _HEADS, "kv_num_heads": _KEY_HEADS},
    )
    arrays = (product[None], *weights, cosines, sines)
    feeds = dict(zip(_HEAD_NORM_INPUTS, arrays, strict=True))
    return np.concatenate(_session(module, model, library).run(None, feeds), axis=2)


def _normed(x: NDArray[np.float32]) -> NDArray[np.float32]:
    squares = np.mean(x * x, axis=-1, keepdims=True)
    normed: NDArray[np.float32] = x / np.sqrt(squares + np.float32(_EPSILON))
    return normed


def _attended(module: Any, attention: _Attention, library: str | None) -> NDArray[np.float32]:
    """Random queries to random keys, the last of them new: wrong, too, where they are not written."""
    generator = np.random.default_rng(0)
    draw = generator.standard_normal
    session = _session(module, _attention_model(attention), library)
    binding = session.io_binding()
    shape = (1, _KEY_HEADS, attention.keys + _SPARE_ROWS, attention.head_size)
    scales = {}
    if attention.cache == "int8":
        caches = {name: generator.integers(-127, 128, shape, np.int8) for name in _CACHES}
        scales = {
            f"{name}_scale": generator.random(shape[1] * shape[3], np.float32) for name in _CACHES
        }
    else:
        caches = {name: draw(shape, np.float32) for name in _CACHES}
    for name, cache_rows in caches.items():  # nothing else keeps them
        value = module.OrtValue.ortvalue_from_numpy(cache_rows)
        binding.bind_ortvalue_input(f"past_{name}", value)
        binding.bind_ortvalue_output(f"present_{name}", value)
    queries, keys = attention.queries, attention.keys
    seen = np.tri(queries, keys, keys - queries, dtype=np.bool_)
    width, key_width = _HEADS * attention.head_size, _KEY_HEADS * attention.head_size
    feeds = {
        "queries": draw((1, queries, width), np.float32),
        "keys": draw((1, queries, key_width), np.float32),
        "values": draw((1, queries, key_width), np.float32),
        "last": np.array([keys - 1], np.int32),
        "total": np.array(keys, np.int32),
        "mask": np.where(seen, np.float32(0), _HIDDEN)[None, None],
        **scales,
    }
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("attended", "cpu")
    session.run_with_iobinding(binding)
    attended: NDArray[np.float32] = binding.get_outputs()[-1].numpy()
    return attended


def _attention_model(attention: _Attention) -> bytes:
    cache_value = Value(attention.cache, 4)
    attributes: dict[str, int | str] = {
        "num_heads": _HEADS,
        "kv_num_heads": _KEY_HEADS,
        "causal": 0,
        "local_window_size": -1,
    }
    scales: dict[str, Value | None] = {}
    if attention.cache == "int8":
        scales = {"sink": None, **{f"{name}_scale": Value("float32", 1) for name in _CACHES}}
        attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
        attributes["kv_cache_bit_width"] = 8
    return one_node_model(
        "GroupQueryAttention",
        "com.microsoft",
        {
            "queries": Value("float32", 3),
            "keys": Value("float32", 3),
            "values": Value("float32", 3),
            **{f"past_{name}": cache_value for name in _CACHES},
            "last": Value("int32", 1),
            "total": Value("int32", 0),
            "cos": None,
            "sin": None,
            "positions": None,
            "mask": Value("float32", 4),
            **scales,
        },
        {},
        {"attended": Value("float32", 3), **{f"present_{name}": cache_value for name in _CACHES}},
        attributes,
    )


def _session(module: Any, model: bytes, library: str | None) -> Any:
    options = module.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if library is not None:
        options.register_custom_ops_library(library)
        model = with_stored_scales(model)
    return module.InferenceSession(model, options, providers=["CPUExecutionProvider"])
