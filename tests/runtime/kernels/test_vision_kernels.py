"""Linear layers, norms and GELU of the vision tower against onnxruntime's operators, at each level."""

from dataclasses import dataclass

import numpy as np
import pytest

from edge_medgemma.runtime.backends.onnx_writer import Value, one_node_model
from edge_medgemma.runtime.kernels.level import cpu_kernels

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

STORED, ADDED, ACTIVATED = range(3)

SHAPES = [(1, 3, 1), (37, 70, 101), (300, 64, 48), (33, 200, 530)]
"""Rows, inputs, outputs: less than a tile, parts of tiles, more than a task, whole tiles."""


@dataclass(frozen=True)
class Layer:
    """A random linear layer, packed."""

    weights: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    packed: np.ndarray


def random_layer(threads, generator, inputs, outputs):
    weights = generator.integers(-128, 128, (inputs, outputs), np.int8)
    packed = np.empty(cpu_kernels.vision_sizes(threads, 1, inputs, outputs, False)[1], np.uint8)
    cpu_kernels.vision_pack(threads, weights, inputs, outputs, packed, None)
    scales = generator.uniform(1e-4, 2e-4, outputs).astype(np.float32)
    return Layer(weights, scales, generator.standard_normal(outputs, np.float32), packed)


def quantised(threads, rows, inverse_scale, norm=(None, None), epsilon=0.0):
    count, size = rows.shape
    out = np.zeros(cpu_kernels.vision_sizes(threads, count, size, 1, False)[0], np.uint8)
    cpu_kernels.vision_quantise(
        threads, rows, *norm, count, size, epsilon, inverse_scale, out, None
    )
    return out


def multiplied(threads, rows, layer, shape, after, out, inverse_scale=1.0):
    weights = layer.packed, layer.scales, layer.bias
    cpu_kernels.vision_linear(threads, rows, *weights, *shape, after, out, inverse_scale, None)
    return out


def integers(threads, rows, count, size):
    """Quantised rows as they are multiplied: by the identity matrix."""
    weights = np.eye(size, dtype=np.int8)
    packed = np.empty(cpu_kernels.vision_sizes(threads, 1, size, size, False)[1], np.uint8)
    cpu_kernels.vision_pack(threads, weights, size, size, packed, None)
    layer = Layer(weights, np.ones(size, np.float32), np.zeros(size, np.float32), packed)
    out = np.empty((count, size), np.float32)
    return multiplied(threads, rows, layer, (count, size, size), STORED, out)


def run_node(operator, inputs, weights=None, **attributes):
    """onnxruntime's result of one operator."""
    model = one_node_model(
        operator,
        attributes.pop("domain", ""),
        {name: Value(array.dtype.name, array.ndim) for name, array in inputs.items()},
        weights or {},
        {"y": Value(attributes.pop("result", "float32"))},
        attributes,
    )
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_integers_are_those_of_onnxruntime(shape, threads):
    """The largest int8 of both signs are among them; products and sums are exact."""
    count, inputs, outputs = shape
    generator = np.random.default_rng(inputs)
    pool = cpu_kernels.vision_threads(threads)
    layer = random_layer(pool, generator, inputs, outputs)
    x = generator.integers(-128, 128, (count, inputs), np.int8)
    x[0], layer.weights[:, 0] = -128, -128
    cpu_kernels.vision_pack(pool, layer.weights, inputs, outputs, layer.packed, None)
    exact = {"a": (x.astype(np.int16) + 128).astype(np.uint8)}
    shifted = run_node("MatMulInteger", exact, {"b": layer.weights}, result="int32")
    sums = shifted - 128 * layer.weights.astype(np.int32).sum(axis=0)
    expected = sums.astype(np.float32) * layer.scales + layer.bias
    rows = quantised(pool, x.astype(np.float32), 1.0)
    stored = multiplied(pool, rows, layer, shape, STORED, np.empty((count, outputs), np.float32))
    np.testing.assert_allclose(stored, expected, rtol=1e-6, atol=1e-5)
    added = multiplied(pool, rows, layer, shape, ADDED, np.full_like(stored, 3))
    np.testing.assert_allclose(added, expected + 3, rtol=1e-6, atol=1e-5)


def test_sums_of_the_largest_numbers_are_exact():
    """As many inputs as the widest layer has."""
    pool, inputs = cpu_kernels.vision_threads(1), 4304
    generator = np.random.default_rng(0)
    layer = random_layer(pool, generator, inputs, 5)
    layer.weights[:] = [[-128, 127, -127, 64, 1]]
    cpu_kernels.vision_pack(pool, layer.weights, inputs, 5, layer.packed, None)
    one = Layer(layer.weights, np.ones(5, np.float32), np.zeros(5, np.float32), layer.packed)
    for x in (-128, 127):
        rows = quantised(pool, np.full((1, inputs), x, np.float32), 1.0)
        out = multiplied(pool, rows, one, (1, inputs, 5), STORED, np.empty((1, 5), np.float32))
        np.testing.assert_array_equal(out[0], x * inputs * layer.weights[0].astype(np.float32))


def test_a_few_large_neighbours_among_small_numbers_are_exact():
    """Where two products are added in int16, only pairs of one sign saturate."""
    pool, inputs = cpu_kernels.vision_threads(1), 4304
    generator = np.random.default_rng(0)
    layer = random_layer(pool, generator, inputs, 40)
    layer.weights[:, ::3] = -128
    layer.weights[:, 1::3] = 127
    cpu_kernels.vision_pack(pool, layer.weights, inputs, 40, layer.packed, None)
    one = Layer(layer.weights, np.ones(40, np.float32), np.zeros(40, np.float32), layer.packed)
    places = [0, 2, 29, 4 * 511, 4 * 512, 4 * 513 + 1, inputs - 2]
    pairs = [[127, 127], [-128, -128], [64, 65], [64, 64], [-64, -65], [-64, -64]]
    pairs += [[127, -128], [-128, 127], [127, 1], [127, 2], [-128, -1]]
    count = len(places) * len(pairs)
    x = generator.integers(-40, 41, (count, inputs))
    for row, (place, pair) in enumerate((place, pair) for place in places for pair in pairs):
        x[row, place : place + 2] = pair
    rows = quantised(pool, x.astype(np.float32), 1.0)
    shape = count, inputs, 40
    given = multiplied(pool, rows, one, shape, STORED, np.empty((count, 40), np.float32))
    np.testing.assert_array_equal(given, (x @ layer.weights.astype(np.int64)).astype(np.float32))


@pytest.mark.parametrize("size", [5, 24, 1152])
def test_norm_and_grid_are_those_of_onnxruntime(size):
    generator = np.random.default_rng(size)
    pool, count = cpu_kernels.vision_threads(2), 70
    rows = generator.normal(0.7, 2, (count, size)).astype(np.float32)
    weight, bias = generator.standard_normal((2, size), np.float32)
    normed = run_node("LayerNormalization", {"x": rows}, {"w": weight, "b": bias})
    scale = np.float32(0.01)  # a part of the numbers is beyond the grid
    zero = np.zeros((), np.int8)
    expected = run_node("QuantizeLinear", {"x": normed}, {"s": scale, "z": zero}, result="int8")
    given = integers(pool, quantised(pool, rows, 1 / scale, (weight, bias), 1e-5), count, size)
    difference = np.abs(given - expected)
    assert difference.max() <= 1  # a number halfway between two
    assert (difference > 0).mean() < 0.002
    assert expected.min() == -128


@pytest.mark.parametrize("size", [5, 24, 1160])
def test_norm_of_numbers_far_from_zero(size):
    """Their mean is a thousand times as large as what is normed: lanes past the end must not count."""
    pool, count = cpu_kernels.vision_threads(1), 40
    rows = np.random.default_rng(size).normal(1000, 1, (count, size)).astype(np.float32)
    exact = rows.astype(np.float64)
    centred = exact - exact.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-5)
    norm = np.ones(size, np.float32), np.zeros(size, np.float32)
    given = integers(pool, quantised(pool, rows, 30.0, norm, 1e-5), count, size)
    assert np.abs(given - normed * 30).max() < 1  # half a step is rounding


def test_gelu_is_that_of_onnxruntime():
    generator = np.random.default_rng(3)
    shape = count, inputs, outputs = 40, 50, 90
    pool = cpu_kernels.vision_threads(2)
    layer = random_layer(pool, generator, inputs, outputs)
    x = generator.integers(-128, 128, (count, inputs)).astype(np.float32)
    rows = quantised(pool, x, 1.0)
    product = multiplied(pool, rows, layer, shape, STORED, np.empty((count, outputs), np.float32))
    product = np.concatenate([product, product * 10])  # far into both tails as well
    cdf = 1 + np.tanh(np.sqrt(2 / np.pi) * (product + 0.044715 * product.astype(np.float64) ** 3))
    expected = np.clip(np.rint(product / 2 * cdf / 0.03), -128, 127)
    bytes_of_rows = cpu_kernels.vision_sizes(pool, count, outputs, 1, False)[0]
    for expected_rows, factor in ((expected[:count], 1), (expected[count:], 10)):
        larger = Layer(layer.weights, layer.scales * factor, layer.bias * factor, layer.packed)
        out = np.zeros(bytes_of_rows, np.uint8)
        multiplied(pool, rows, larger, shape, ACTIVATED, out, 1 / 0.03)
        given = integers(pool, out, count, outputs)
        difference = np.abs(given - expected_rows)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.002


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_layers_are_closer_to_float64_than_bfloat16_is(shape):
    """One number of a row and one weight of an output are far larger than the others."""
    count, inputs, outputs = shape
    generator = np.random.default_rng(outputs)
    pool = cpu_kernels.vision_threads(2)
    weights = generator.standard_normal((inputs, outputs), np.float32)
    x = generator.standard_normal((count, inputs), np.float32)
    weights[0] *= 3
    x[:, -1] *= 10
    bias = generator.standard_normal(outputs, np.float32)
    row_bytes, weight_bytes = cpu_kernels.vision_sizes(pool, count, inputs, outputs, True)
    rows, packed = np.zeros(row_bytes, np.uint8), np.empty(weight_bytes, np.uint8)
    scales, row_scales = np.empty(outputs, np.float32), np.empty(count, np.float32)
    cpu_kernels.vision_pack(pool, weights, inputs, outputs, packed, scales)
    cpu_kernels.vision_quantise(pool, x, None, None, count, inputs, 0.0, 1.0, rows, row_scales)
    expected = x.astype(np.float64) @ weights + bias
    rounded = [(one.view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32) for one in (x, weights)]
    bfloat16 = np.linalg.norm(rounded[0].astype(np.float64) @ rounded[1] + bias - expected)
    buffers = pool, rows, packed, scales, bias, *shape
    out = np.empty((count, outputs), np.float32)
    cpu_kernels.vision_linear(*buffers, STORED, out, 1.0, row_scales)
    assert np.linalg.norm(out - expected) < max(bfloat16 / 2, 1e-3)
    added = np.full_like(out, 2)
    cpu_kernels.vision_linear(*buffers, ADDED, added, 1.0, row_scales)
    np.testing.assert_allclose(added, out + 2, atol=1e-5)
    active = np.empty_like(out)
    cpu_kernels.vision_linear(*buffers, ACTIVATED, active, 1.0, row_scales)
    cdf = 1 + np.tanh(np.sqrt(2 / np.pi) * (out + 0.044715 * out.astype(np.float64) ** 3))
    np.testing.assert_allclose(active, out / 2 * cdf, atol=2e-6 * max(np.abs(out).max(), 1))


def test_no_sum_of_the_largest_int16_overflows():
    pool, inputs = cpu_kernels.vision_threads(1), 4304
    row_bytes, weight_bytes = cpu_kernels.vision_sizes(pool, 1, inputs, 1, True)
    rows, packed = np.zeros(row_bytes, np.uint8), np.empty(weight_bytes, np.uint8)
    scales, row_scales, out = (np.empty(1, np.float32) for _ in range(3))
    weights = np.ones((inputs, 1), np.float32)
    for sign in (1, -1):
        cpu_kernels.vision_pack(pool, sign * weights, inputs, 1, packed, scales)
        cpu_kernels.vision_quantise(
            pool, weights.T.copy(), None, None, 1, inputs, 0.0, 1.0, rows, row_scales
        )
        bias = np.zeros(1, np.float32)
        cpu_kernels.vision_linear(
            pool, rows, packed, scales, bias, 1, inputs, 1, STORED, out, 1.0, row_scales
        )
        np.testing.assert_allclose(out, sign * inputs, rtol=1e-6)


def test_buffers_of_the_wrong_size_are_refused():
    pool = cpu_kernels.vision_threads(1)
    layer = random_layer(pool, np.random.default_rng(0), 8, 8)
    rows = quantised(pool, np.zeros((2, 8), np.float32), 1.0)
    out = np.empty((2, 8), np.float32)
    for wrong in [(3, 8, 8), (2, 100, 8), (2, 8, 9), (0, 8, 8), (2, -8, 8), (2**40, 8, 8)]:
        with pytest.raises(ValueError, match=r"a buffer has|out of range"):
            multiplied(pool, rows, layer, wrong, STORED, out)
    with pytest.raises(ValueError, match="use of products"):
        multiplied(pool, rows, layer, (2, 8, 8), 3, out)
    with pytest.raises(ValueError, match="number of threads"):
        cpu_kernels.vision_threads(0)


@pytest.mark.parametrize("after", [STORED, ADDED, ACTIVATED])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_in_float32_stays_in_its_row_or_output(wrong, after):
    generator = np.random.default_rng(0)
    shape = count, inputs, outputs = 5, 70, 40
    pool = cpu_kernels.vision_threads(1)
    x = generator.standard_normal((count, inputs), np.float32)
    weights = generator.standard_normal((inputs, outputs), np.float32)
    x[2, 3] = weights[4, 7] = wrong
    row_bytes, weight_bytes = cpu_kernels.vision_sizes(pool, count, inputs, outputs, True)
    rows, packed = np.zeros(row_bytes, np.uint8), np.empty(weight_bytes, np.uint8)
    scales, row_scales = np.empty(outputs, np.float32), np.empty(count, np.float32)
    cpu_kernels.vision_pack(pool, weights, inputs, outputs, packed, scales)
    cpu_kernels.vision_quantise(pool, x, None, None, count, inputs, 0.0, 1.0, rows, row_scales)
    out, bias = np.zeros((count, outputs), np.float32), np.zeros(outputs, np.float32)
    cpu_kernels.vision_linear(pool, rows, packed, scales, bias, *shape, after, out, 1.0, row_scales)
    assert not np.isfinite(out[2]).any() and not np.isfinite(out[:, 7]).any()
    assert np.isfinite(np.delete(np.delete(out, 2, 0), 7, 1)).all()


def test_scales_that_are_written_may_not_be_read_only():
    pool = cpu_kernels.vision_threads(1)
    row_bytes, weight_bytes = cpu_kernels.vision_sizes(pool, 1, 4, 4, True)
    rows, packed = np.zeros(row_bytes, np.uint8), np.empty(weight_bytes, np.uint8)
    with pytest.raises(ValueError, match="read-only"):
        cpu_kernels.vision_pack(pool, np.ones((4, 4), np.float32), 4, 4, packed, bytes(16))
    numbers = 1, 4, 0.0, 1.0
    with pytest.raises(ValueError, match="read-only"):
        x = np.ones((1, 4), np.float32)
        cpu_kernels.vision_quantise(pool, x, None, None, *numbers, rows, bytes(4))
