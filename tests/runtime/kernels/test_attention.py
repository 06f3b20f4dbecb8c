"""The attention kernel computes softmax attention, alone and within OpenVINO."""

import threading

import numpy as np
import pytest

from edge_medgemma.runtime.backends.openvino import vision as openvino_backend
from edge_medgemma.runtime.backends.openvino.vision import OpenVinoVision, openvino_identity
from edge_medgemma.runtime.backends.self_test.test_image import synthetic_pixel_values
from edge_medgemma.runtime.backends.self_test.vision_agreement import lowest_cosine
from edge_medgemma.runtime.errors import ProviderError
from edge_medgemma.runtime.kernels import attention
from edge_medgemma.runtime.kernels.attention import AttentionKernel, kernel_absence
from edge_medgemma.runtime.manifest import load_manifest

absence = kernel_absence()
needs_kernel = pytest.mark.skipif(absence is not None, reason=str(absence))


@pytest.fixture
def kernel():
    made = AttentionKernel(2)
    yield made
    made.close()


SHAPES = pytest.mark.parametrize(
    ("rows", "heads", "size"),
    [(64, 4, 72), (2, 1, 5), (49, 2, 16), (127, 1, 64), (129, 3, 80), (1100, 2, 33), (40, 1, 256)],
)


def drawn(rows: int, heads: int, size: int) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, 3 * heads * size), np.float32)


def attended(kernel: AttentionKernel, joined: np.ndarray, heads: int) -> np.ndarray:
    out = np.full((len(joined), joined.shape[1] // 3), np.nan, np.float32)
    kernel.attend(joined, heads, out)
    return out


def reference(joined: np.ndarray, heads: int) -> np.ndarray:
    """The formula in float64."""
    rows = len(joined)
    query, key, value = (
        part.reshape(rows, heads, -1).transpose(1, 0, 2).astype(np.float64)
        for part in np.split(joined, 3, axis=1)
    )
    scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[2])
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    return (weights @ value).transpose(1, 0, 2).reshape(rows, -1)


def compare(kernel: AttentionKernel, joined: np.ndarray, heads: int, limit: float) -> None:
    expected = reference(joined, heads)
    difference = np.abs(attended(kernel, joined, heads) - expected)
    relative = np.linalg.norm(difference) / np.linalg.norm(expected)
    figures = f"max {difference.max():.2e}, mean {difference.mean():.2e}, {relative=:.2e}"
    assert relative < limit, figures


@needs_kernel
@SHAPES
def test_it_is_softmax_attention(rows, heads, size, kernel):
    compare(kernel, drawn(rows, heads, size), heads, 2**-10)


@needs_kernel
def test_steep_scores_take_the_value_of_one_key(kernel):
    """Scores of +-2000: exponentials that no float holds. Later blocks bring higher maxima."""
    rows, size = 300, 8
    joined = np.zeros((rows, 3 * size), np.float32)
    joined[:, 0] = 64
    joined[:, size] = np.linspace(-100, 100, rows)
    joined[:, 2 * size] = np.arange(rows) % 128
    out = attended(kernel, joined, 1)
    assert np.abs(out[:, 0] - (rows - 1) % 128).max() < 115 * 2**-11
    joined[:, 0] = -64
    assert np.abs(attended(kernel, joined, 1)[:, 0]).max() < 115 * 2**-11, (
        "the first key's value is 0"
    )


@needs_kernel
def test_what_is_not_a_number_stays_none(kernel):
    joined = drawn(200, 2, 16)
    joined[150, 2 * 16 + 3] = np.nan  # a key of the first head
    out = attended(kernel, joined, 2)
    assert np.isnan(out[:, :16]).all()
    assert np.isfinite(out[:, 16:]).all()


@needs_kernel
def test_buffers_of_other_lengths_are_refused(kernel):
    joined = drawn(64, 2, 16)
    with pytest.raises(ValueError, match="do not fit"):
        kernel.attend(joined, 2, np.empty((64, 33), np.float32))
    with pytest.raises(ValueError, match="do not fit"):
        kernel.attend(joined[:-1].copy(), 2, np.empty((64, 32), np.float32))


@pytest.fixture
def openvino():
    return pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")


@needs_kernel
def test_openvino_runs_every_layer_with_it(openvino, tiny_engine_directory, monkeypatch):
    vision = load_manifest(tiny_engine_directory).vision
    calls = []
    attend = AttentionKernel.attend

    def counted(self, joined, heads, out):
        calls.append(heads)
        attend(self, joined, heads, out)

    monkeypatch.setattr(AttentionKernel, "attend", counted)
    pixels = synthetic_pixel_values(vision)
    features = OpenVinoVision(tiny_engine_directory, 2).run(pixels)
    assert calls == [vision.heads] * vision.layers
    monkeypatch.setattr(openvino_backend, "kernel_absence", lambda: "switched off")
    expected = OpenVinoVision(tiny_engine_directory, 2).run(pixels)
    assert len(calls) == vision.layers
    difference = np.abs(features - expected)
    cosine = lowest_cosine(features, expected)
    assert cosine > 0.9999, f"max {difference.max():.2e}, mean {difference.mean():.2e}, {cosine=}"


@needs_kernel
def test_heads_that_do_not_fit_are_one_line(openvino, tmp_path):
    import onnx

    shape = [1, 4, 2 * attention.attention_kernel.LARGEST_HEAD]
    node = onnx.helper.make_node(
        "MultiHeadAttention", ["x", "x", "x"], ["y"], domain="com.microsoft", num_heads=1
    )
    ends = [onnx.helper.make_tensor_value_info(name, 1, shape) for name in "xy"]
    graph = onnx.helper.make_graph([node], "vision", ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid("", 23), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, tmp_path / "vision.onnx")
    with pytest.raises(ProviderError, match=r"OpenVINO does not load") as caught:
        OpenVinoVision(tmp_path, 1)
    assert "\n" not in str(caught.value)


@needs_kernel
def test_the_graph_goes_with_its_model(openvino, tiny_engine_directory, monkeypatch):
    """Operators in Python live for ever; what feeds them must not."""
    from edge_medgemma.runtime.backends.openvino import attention_op as openvino_attention

    operators = []
    detach = openvino_attention.detach
    monkeypatch.setattr(
        openvino_attention, "detach", lambda made: (operators.extend(made), detach(made))
    )
    before = set(threading.enumerate())  # those of earlier models may be about to end
    model = OpenVinoVision(tiny_engine_directory, 3)
    model.run(synthetic_pixel_values(load_manifest(tiny_engine_directory).vision))
    own = [one for one in threading.enumerate() if one not in before]
    assert sum(one.name.startswith("attention") for one in own) == 3
    del model
    for thread in own:
        thread.join(5)
    assert not any(thread.is_alive() for thread in own)
    sources = {one.input_value(0).get_node().get_type_name() for one in operators}
    assert sources == {"Parameter"}, "the copies that were compiled, too"
    assert len(operators) >= 2 * load_manifest(tiny_engine_directory).vision.layers


@needs_kernel
def test_what_stops_it_reaches_the_caller(openvino, tiny_engine_directory, monkeypatch):
    pixels = synthetic_pixel_values(load_manifest(tiny_engine_directory).vision)
    model = OpenVinoVision(tiny_engine_directory, 1)
    expected = model.run(pixels)

    calls = []

    def interrupted(*_):
        calls.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AttentionKernel, "attend", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.run(pixels)
    assert len(calls) == 1, "the other layers are not waited for"
    assert (model.run(pixels) == expected).all(), "the next slice is as before"


def test_without_it_openvino_computes_alone(openvino, tiny_engine_directory, monkeypatch):
    with_kernel = openvino_identity()
    monkeypatch.setattr(attention, "attention_kernel", None)
    assert "no C compiler" in kernel_absence()
    model = OpenVinoVision(tiny_engine_directory, 1)
    pixels = synthetic_pixel_values(load_manifest(tiny_engine_directory).vision)
    assert np.isfinite(model.run(pixels)).all()
    assert absence is not None or openvino_identity() != with_kernel
