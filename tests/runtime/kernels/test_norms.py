"""Norms of a decoder's layers against the formula in double precision.

That they are onnxruntime's operators is tested with the graphs that are fused, in `test_fused_graph.py`.
"""

import numpy as np
import onnxruntime
import pytest
from support.linear_layers import opened

from edge_medgemma.runtime.backends.onnx_writer import Value, one_node_model
from edge_medgemma.runtime.backends.onnxruntime.custom_ops import cpu_kernels
from edge_medgemma.runtime.backends.onnxruntime.fused_graph import HEAD_NORM, RESIDUAL_NORM

LIBRARY = cpu_kernels and cpu_kernels.__file__
EPSILON = 1e-6
LIMIT = 2e-6
"""Of the largest number: sums of float32 in another order leave 3e-7."""

RESIDUAL_AXES = {"residual": 3, "product": 3, "weight": 1, "following": 1}
HEAD_AXES = {"product": 3, "query_weight": 1, "key_weight": 1, "cosines": 3, "sines": 3}


def norm_model(operator: str, axes: dict[str, int], **attributes: float) -> bytes:
    return one_node_model(
        operator,
        "com.microsoft",
        {name: Value("float32", count) for name, count in axes.items()},
        {},
        {"first": Value("float32", 3), "second": Value("float32", 3)},
        {"epsilon": EPSILON, **attributes},
    )


def residual_session(threads: int = 2) -> onnxruntime.InferenceSession:
    return opened(norm_model(RESIDUAL_NORM, RESIDUAL_AXES), LIBRARY, threads)


def head_session(heads: int, key_heads: int) -> onnxruntime.InferenceSession:
    model = norm_model(HEAD_NORM, HEAD_AXES, num_heads=heads, kv_num_heads=key_heads)
    return opened(model, LIBRARY)


def normed(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPSILON)


def compare(given: np.ndarray, expected: np.ndarray) -> None:
    difference = np.abs(given - expected) / np.abs(expected).max()
    assert difference.max() < LIMIT, f"max {difference.max():.1e}, mean {difference.mean():.1e}"


def residual_arrays(rows: int, size: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(size + rows).standard_normal
    shapes = ((1, rows, size), (1, rows, size), (size,), (size,))
    return {
        name: draw(shape, np.float32) for name, shape in zip(RESIDUAL_AXES, shapes, strict=True)
    }


def head_arrays(rows: int, heads: int, size: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(size + rows).standard_normal
    angles = draw((1, rows, size // 2), np.float32)
    return {
        "product": draw((1, rows, heads * size), np.float32),
        "query_weight": draw(size, np.float32),
        "key_weight": draw(size, np.float32),
        "cosines": np.cos(angles),
        "sines": np.sin(angles),
    }


@pytest.mark.parametrize("size", [1, 15, 64, 77, 2560])
@pytest.mark.parametrize("rows", [1, 8, 9, 50])
def test_a_residual_gets_the_norm_of_a_product_and_is_normed(rows, size):
    arrays = residual_arrays(rows, size)
    arrays["product"] *= np.float32(1e3)
    given = residual_session().run(None, arrays)
    exact = {name: array.astype(np.float64) for name, array in arrays.items()}
    total = exact["residual"] + normed(exact["product"]) * exact["weight"]
    compare(given[0], total)
    compare(given[1], normed(total) * exact["following"])


@pytest.mark.parametrize(
    ("heads", "key_heads", "size"), [(1, 1, 2), (3, 2, 24), (8, 4, 256), (4, 1, 66)]
)
@pytest.mark.parametrize("rows", [1, 8, 9, 50])
def test_heads_are_normed_and_then_rotated(rows, heads, key_heads, size):
    arrays = head_arrays(rows, heads + key_heads, size)
    given = head_session(heads, key_heads).run(None, arrays)
    exact = {name: array.astype(np.float64)[0] for name, array in arrays.items() if array.ndim == 3}
    each = normed(exact["product"].reshape(rows, heads + key_heads, size))
    each[:, :heads] *= arrays["query_weight"]
    each[:, heads:] *= arrays["key_weight"]
    turned = each[..., : size // 2] + 1j * each[..., size // 2 :]
    turned *= (exact["cosines"] + 1j * exact["sines"])[:, None]
    both = np.concatenate([turned.real, turned.imag], axis=-1)
    compare(given[0][0], both[:, :heads].reshape(rows, -1))
    compare(given[1][0], both[:, heads:].reshape(rows, -1))


def test_threads_change_nothing():
    arrays = residual_arrays(70, 96)
    expected = residual_session(1).run(None, arrays)
    np.testing.assert_array_equal(residual_session(3).run(None, arrays), expected)


def test_no_rows_and_what_is_not_a_number():
    session = residual_session()
    assert session.run(None, residual_arrays(0, 32))[1].shape == (1, 0, 32)
    arrays = residual_arrays(3, 32)
    arrays["product"][0, 1, 5] = np.nan
    for given in session.run(None, arrays):
        assert np.isnan(given[0, 1]).all()
        assert np.isfinite(given[0, [0, 2]]).all()


@pytest.mark.parametrize("name", ["product", "weight", "following"])
def test_another_size_than_the_residuals_is_an_error(name):
    arrays = residual_arrays(2, 32)
    arrays[name] = arrays[name][..., :-1].copy()
    with pytest.raises(Exception, match="as large as the residual"):
        residual_session().run(None, arrays)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("product", r"num_heads \+ kv_num_heads"),
        ("query_weight", r"num_heads \+ kv_num_heads"),
        ("key_weight", r"num_heads \+ kv_num_heads"),
        ("cosines", "half a head"),
        ("sines", "half a head"),
    ],
)
def test_heads_of_another_size_are_an_error(name, message):
    arrays = head_arrays(2, 5, 32)
    arrays[name] = arrays[name][..., :-1].copy()
    with pytest.raises(Exception, match=message):
        head_session(3, 2).run(None, arrays)


def test_a_residual_of_another_shape_is_an_error():
    arrays = residual_arrays(3, 32)
    arrays["residual"] = arrays["residual"].reshape(3, 1, 32)
    with pytest.raises(Exception, match="as large as the residual"):
        residual_session().run(None, arrays)


def test_heads_of_several_sequences_are_an_error():
    arrays = head_arrays(2, 5, 32)
    arrays["product"] = arrays["product"].reshape(2, 1, -1)
    with pytest.raises(Exception, match="rows, heads"):
        head_session(3, 2).run(None, arrays)


def test_no_heads_are_an_error():
    with pytest.raises(Exception, match="1 and more"):
        head_session(0, 2)
