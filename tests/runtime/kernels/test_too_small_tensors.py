"""The operators refuse tensors smaller than what they would read, before they read."""

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from support.grouped_attention import Case, attended, drawn

from edge_medgemma.runtime.backends.onnx_writer import Value, one_node_model
from edge_medgemma.runtime.backends.onnxruntime.custom_ops import cpu_kernels

pytestmark = pytest.mark.skipif(
    cpu_kernels is None or not cpu_kernels.claimed_levels(),
    reason="this processor, or installation, has no kernels for the decoder",
)
LIBRARY = cpu_kernels and cpu_kernels.__file__

FLOAT32, INT8 = Case(64, 100), Case(1, 100, is_int8=True)


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize(
    ("weights", "scales", "wrong"),
    [
        ((48, 2, 64), (48, 2), None),
        ((47, 2, 64), (48, 2), "the weights are not"),
        ((48, 2, 32), (48, 2), "the weights are not"),
        ((48, 1, 64), (48, 2), "the weights are not"),
        ((0, 2, 64), (48, 2), "the weights are not"),
        ((48, 2, 64), (47, 2), "the scales are not"),
        ((48, 2, 64), (48, 1), "the scales are not"),
        ((48, 2, 64), (0,), "the scales are not"),
    ],
)
def test_a_product_of_too_few_weights_is_an_error(rows, weights, scales, wrong):
    generator = np.random.default_rng(0)
    model = one_node_model(
        "MatMulNBits",
        "com.microsoft",
        {"x": Value("float32")},
        {
            "weights": generator.integers(0, 256, weights, dtype=np.uint8),
            "scales": generator.random(scales, np.float32).astype(ml_dtypes.bfloat16),
        },
        {"y": Value("float32")},
        {"K": 256, "N": 48, "bits": 4, "block_size": 128, "accuracy_level": 4},
    )
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False  # each tensor then has ends that a sanitizer sees
    options.register_custom_ops_library(LIBRARY)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x = {"x": np.ones((rows, 256), np.float32)}
    if wrong is None:
        assert session.run(None, x)[0].shape == (rows, 48)
    else:
        with pytest.raises(Exception, match=wrong):
            session.run(None, x)


def shorter(name: str, axis: int):
    """One less along an axis of an input."""
    return lambda arrays: {name: arrays[name].take(range(arrays[name].shape[axis] - 1), axis)}


def of(name: str, *values: int):
    return lambda arrays: {name: np.array(values, np.int32)}


@pytest.mark.parametrize("case", [FLOAT32, INT8], ids=["many rows", "one row in int8"])
@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (of("last"), "one number for each"),
        (of("last", 99, 99), "one number for each"),
        (of("total"), "one number for each"),
        (of("last", -1), "seqlens_k is not within"),
        (of("last", 100), "seqlens_k is not within"),
        (of("last", 2**31 - 1), "seqlens_k is not within"),
        (of("total", 122), "not within the caches"),
        (of("total", 0), "not within the caches"),
        (of("total", -5), "not within the caches"),
        (shorter("query", 2), "queries are not"),
        (shorter("query", 1), "new keys or values are not|total_sequence_length"),
        (shorter("query", 0), "caches are not"),
        (shorter("key", 2), "new keys or values are not"),
        (shorter("value", 1), "new keys or values are not"),
        (shorter("past_key", 1), "caches are not"),
        (shorter("past_value", 2), "caches are not"),
        (shorter("past_value", 3), "caches are not"),
        (shorter("mask", 3), "the mask is not"),
        (shorter("mask", 2), "the mask is not"),
        (lambda arrays: {"mask": arrays["mask"][0]}, "the mask is not"),
        (lambda arrays: {"query": arrays["query"][0]}, "queries have 3 axes"),
        (
            lambda arrays: {f"past_{kind}": arrays[f"past_{kind}"][:, :, :50] for kind in ("key", "value")},
            "not within the caches",
        ),
    ],
)  # fmt: skip
def test_an_attention_of_too_small_tensors_is_an_error(case, change, wrong):
    arrays = drawn(case)
    arrays |= {name: np.ascontiguousarray(array) for name, array in change(arrays).items()}
    with pytest.raises(Exception, match=wrong):
        attended(case, arrays, LIBRARY)


@pytest.mark.parametrize("kind", ["key", "value"])
@pytest.mark.parametrize("count", [0, 1, 63])
def test_caches_in_int8_with_too_few_scales_are_an_error(kind, count):
    arrays = drawn(INT8)
    arrays[f"{kind}_step"] = arrays[f"{kind}_step"][:count]
    with pytest.raises(Exception, match="has not the scales"):
        attended(INT8, arrays, LIBRARY)


@pytest.mark.parametrize(("rows", "size"), [(-1, 8), (8, -1), (2**40, 8), (8, 2**40)])
def test_packing_of_absurd_sizes_is_an_error(rows, size):
    with pytest.raises(ValueError, match="out of range"):
        cpu_kernels.vision_packed_words(rows, 1, size)
