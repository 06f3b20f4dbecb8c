"""The linear kernel against onnxruntime's MatMulNBits, whose own numbers are the measure."""

import numpy as np
import pytest
from support.linear_layers import dequantized, drawn, opened, product_model, rounded

from edge_medgemma.runtime.backends.onnxruntime.custom_ops import cpu_kernels
from edge_medgemma.runtime.backends.onnxruntime.stored_scales import GATED_PRODUCT

LIBRARY = cpu_kernels and cpu_kernels.__file__


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("inputs", "outputs", "block"),
    [(256, 48, 128), (1152, 301, 128), (320, 33, 32), (192, 5, 64), (4304, 37, 16), (512, 31, 256)],
)
def test_it_is_the_product_with_rounded_inputs(inputs, outputs, block, bits):
    model, weights = drawn(inputs, outputs, bits, block)
    kernel, own = opened(model, LIBRARY), opened(model, None)
    for rows in (1, 2, 6, 7, 13, 40):
        x = np.random.default_rng(rows).standard_normal((rows, inputs), np.float32)
        x[0, :block] = 0
        given = kernel.run(None, {"x": x})[0]
        for name, expected, allowed in (
            ("the formula", rounded(x, block) @ weights.T, 1e-3),  # a tie is rounded otherwise
            ("onnxruntime", own.run(None, {"x": x})[0], 1e-5),
        ):
            difference = np.abs(given - expected) / np.abs(expected).max()
            words = f"{rows} rows, {name}: max {difference.max():.1e}, mean {difference.mean():.1e}"
            assert difference.max() < allowed, words


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("inputs", "width", "block"), [(256, 64, 128), (192, 1, 64), (320, 77, 32), (64, 150, 16)]
)
def test_a_gate_is_gelu_of_one_half_times_the_other(inputs, width, block, bits):
    model, _ = drawn(inputs, 2 * width, bits, block)
    gated, _ = drawn(inputs, 2 * width, bits, block, GATED_PRODUCT)
    kernel, own = opened(gated, LIBRARY), opened(model, None)
    for rows in (1, 6, 7, 40):
        x = np.random.default_rng(rows).standard_normal((rows, inputs), np.float32) / 16
        gate, up = np.split(own.run(None, {"x": x})[0].astype(np.float64), 2, axis=1)
        root = np.sqrt(2 / np.pi)
        expected = gate / 2 * (1 + np.tanh(root * (gate + 0.044715 * gate**3))) * up
        size = np.abs(gate).max() * np.abs(up).max()  # a GELU near nothing may be the largest
        difference = np.abs(kernel.run(None, {"x": x})[0] - expected) / size
        words = f"{rows} rows: max {difference.max():.1e}, mean {difference.mean():.1e}"
        assert difference.max() < 1e-5, words


def test_an_odd_number_of_outputs_has_no_halves():
    model, _ = drawn(256, 33, 4, 32, GATED_PRODUCT)
    with pytest.raises(Exception, match="two halves"):
        opened(model, LIBRARY)


def test_threads_and_rows_beside_a_row_change_nothing():
    model, _ = drawn(512, 300, 4, 128)
    x = np.random.default_rng(0).standard_normal((50, 512), np.float32)
    expected = opened(model, LIBRARY, 1).run(None, {"x": x})[0]
    for threads in (2, 3):
        given = opened(model, LIBRARY, threads).run(None, {"x": x})[0]
        np.testing.assert_array_equal(given, expected)
    given = opened(model, LIBRARY).run(None, {"x": x[5:31]})[0]
    np.testing.assert_array_equal(given, expected[5:31])


def test_no_rows_and_what_is_not_a_number():
    model, _ = drawn(256, 40, 4, 32)
    session = opened(model, LIBRARY)
    assert session.run(None, {"x": np.zeros((0, 256), np.float32)})[0].shape == (0, 40)
    gated = opened(drawn(256, 40, 4, 32, GATED_PRODUCT)[0], LIBRARY)
    assert gated.run(None, {"x": np.zeros((0, 256), np.float32)})[0].shape == (0, 20)
    for rows in (1, 9):
        x = np.ones((rows, 256), np.float32)
        for wrong in (np.nan, np.inf):
            x[-1, 3] = wrong
            for each in (session, gated):
                assert np.isnan(each.run(None, {"x": x})[0][-1]).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_nearly_nothing_is_nothing(bits):
    """Blocks whose scale has no inverse in float32, beside one of ordinary numbers."""
    model, weights = drawn(256, 40, bits, 128)
    session = opened(model, LIBRARY)
    for rows in (1, 9):
        for size in (1e-39, 1e-44):
            x = np.random.default_rng(rows).standard_normal((rows, 256), np.float32)
            x[:, :128] *= np.float32(size)
            x[0, 5] = 0
            given = session.run(None, {"x": x})[0]
            expected = rounded(x, 128)[:, 128:] @ weights.T[128:]
            np.testing.assert_allclose(given, expected, atol=1e-3 * np.abs(expected).max())
            x[:, 128:] = 0
            assert not session.run(None, {"x": x})[0].any()


def test_a_wrong_width_is_an_error():
    model, _ = drawn(256, 40, 4, 32)
    with pytest.raises(Exception, match="last axis"):
        opened(model, LIBRARY).run(None, {"x": np.zeros((1, 128), np.float32)})


@pytest.mark.parametrize(("bits", "block"), [(4, 16), (4, 64), (4, 512), (8, 32), (8, 512)])
def test_no_sum_saturates(bits, block):
    """Where weights are all the largest or smallest, and so are inputs, each product is exact."""
    inputs, largest = 1024, 2**bits - 1
    weights = np.repeat([[0], [largest], [largest], [0], [1]], inputs, axis=1)
    weights[2, ::2] = 0
    weights[3, ::4] = largest
    scales = np.ones((len(weights), inputs // block), np.float32)
    session = opened(product_model(weights, scales, bits), LIBRARY)
    rows = np.ones((4, inputs), np.float32)
    rows[1] = -1
    rows[2, 1::2] = -1
    rows[3, ::4] = -1
    expected = rows @ dequantized(weights, scales, bits).T
    for repeats in (1, 5):
        given = session.run(None, {"x": np.tile(rows * 127, (repeats, 1))})[0]
        np.testing.assert_array_equal(given, np.tile(expected * 127, (repeats, 1)))
