"""The graphs for TensorRT, run by onnxruntime on the CPU, against those of the `ort` dialect."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import _check_attention, export_engine
from edge_medgemma.export.target import CPU, Target, choose_target
from edge_medgemma.runtime.backends import decoder_inputs as feeds_module
from edge_medgemma.runtime.backends.onnxruntime import custom_ops as operators
from edge_medgemma.runtime.backends.select import Provider, Providers
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation import prefix as prefix_module
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.sampling import Sampling
from edge_medgemma.runtime.manifest import load_manifest

PHANTOM = Path(__file__).resolve().parents[2] / "data" / "demo_checkpoint"
IMAGES = 3


@pytest.fixture(scope="module", params=["tiny", "phantom"])
def checkpoint(request, tiny_checkpoint):
    return open_checkpoint(str(tiny_checkpoint if request.param == "tiny" else PHANTOM))


@pytest.fixture(scope="module", autouse=True)
def own_linear_maps():
    """Two spellings in one library: what our kernel adds is tests/runtime/backends/test_operators.py's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators, "level_absence", lambda: "none wanted")
        yield


@pytest.fixture(scope="module")
def answers(checkpoint, tmp_path_factory):
    """From a recipe to image features, logits of two questions, and a greedy answer."""
    known = {}

    def run(precision, target):
        if (precision, target) not in known:
            folder = tmp_path_factory.mktemp("engine") / "engine"
            export_engine(checkpoint, folder, precision=precision, block_size=32, target=target)
            with Engine.open(folder, threads=1) as engine:
                known[precision, target] = ask(engine)
        return known[precision, target]

    return run


def ask(engine):
    """Read several chunks with an image each, so that the local caches are compacted on the way."""
    size = engine.manifest.vision.image_size
    coarse = np.random.default_rng(0).integers(0, 256, (IMAGES, 7, 7, 3), dtype=np.uint8)
    pixels = coarse.repeat(-(-size // 7), axis=1).repeat(-(-size // 7), axis=2)
    features = engine.encode_images(pixels)
    prefix = engine.new_prefix()
    first = 0
    for chunk in engine.prompt.prefix("Please look at these slices.", IMAGES):
        prefix.extend(chunk, features[first : first + chunk.images] if chunk.images else None)
        first += chunk.images
    question = engine.prompt.question("Is there blood?")
    logits = prefix.score([question, question[1:]])
    answer = [step.token_id for step in prefix.generate(question, Sampling(), 24)]
    return features, logits, answer


def report(name, found, expected, limit):
    """Differences as shares of the reference's range."""
    difference = np.abs(found - expected) / np.ptp(expected)
    words = f"{name}: max {difference.max():.1e}, mean {difference.mean():.1e} of the range"
    print(words)
    assert np.isfinite(found).all(), words
    assert difference.max() < limit, words


@pytest.fixture(autouse=True)
def little_slack(monkeypatch):
    """Local caches that fill up within a short prompt."""
    monkeypatch.setattr(prefix_module, "LOCAL_SLACK_SLOTS", 64)


def test_float32_is_the_same_model(answers):
    expected, found = answers("fp32", CPU), answers("fp32", Target("trt", "fp32"))
    report("features", found[0], expected[0], 1e-5)
    report("logits", found[1], expected[1], 1e-5)
    assert found[2] == expected[2]


def test_float16_is_the_same_up_to_rounding(answers):
    expected, found = answers("fp32", CPU), answers("fp16", Target("trt", "fp16"))
    report("features", found[0], expected[0], 5e-3)
    report("logits", found[1], expected[1], 5e-3)


@pytest.mark.parametrize("activations", ["fp32", "fp16"])
def test_8_bit_weights_are_the_same_integers(answers, activations):
    """What differs in one of the two is onnxruntime's rounding of activations, and a head in planes."""
    expected, found = answers("int8", CPU), answers("int8", Target("trt", activations))
    report("logits", found[1], expected[1], 0.025)


def test_4_bit_weights_have_positive_scales_and_lose_no_more(checkpoint, answers, tmp_path):
    """TensorRT refuses a scale that is not positive; onnxruntime's MatMulNBits takes it."""
    exact, cpu = answers("fp32", CPU), answers("int4", CPU)
    found = answers("int4", Target("trt", "fp32"))
    losses = [float(np.abs(one[1] - exact[1]).mean()) for one in (found, cpu)]
    print(f"mean difference of the logits {losses[0]:.2e}, on a CPU {losses[1]:.2e}")
    assert losses[0] < 1.5 * losses[1]
    target = Target("trt", "fp32")
    export_engine(checkpoint, tmp_path / "scales", precision="int4", block_size=32, target=target)
    graph = onnx.load(tmp_path / "scales" / "decoder.onnx").graph
    scales = [t for t in graph.initializer if t.name.endswith(".scale")]
    assert scales
    assert all((onnx.numpy_helper.to_array(one) > 0).all() for one in scales)


@pytest.mark.parametrize("precision", ["int4", "fp16"])
def test_cuda_engines_in_float16_run_on_a_cpu_too(answers, precision):
    expected, found = answers(precision, CPU), answers(precision, Target("ort", "fp16"))
    report("features", found[0], expected[0], 5e-3)
    report("logits", found[1], expected[1], 0.05)


def test_the_mask_is_what_hides(checkpoint, answers, monkeypatch, tmp_path):
    """The comparison can fail: without a window the logits move."""
    target = Target("trt", "fp32")
    expected = answers("fp32", target)
    feeds = feeds_module.cache_feeds

    def careless(dialect, masks, capacity):
        return feeds(dialect, masks | {"local": np.zeros_like(masks["local"])}, capacity)

    monkeypatch.setattr(feeds_module, "cache_feeds", careless)
    export_engine(checkpoint, tmp_path / "e", precision="fp32", block_size=32, target=target)
    with Engine.open(tmp_path / "e", threads=1) as engine:
        found = ask(engine)
    assert np.abs(found[1] - expected[1]).max() > 1e-2 * np.ptp(expected[1])


def _types(graph):
    known = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in known}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize("activations", ["bf16", "fp16"])
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_only_what_tensorrt_reads(tiny_checkpoint, tmp_path, precision, activations):
    opened = open_checkpoint(str(tiny_checkpoint))
    target = Target("trt", activations)
    export_engine(opened, tmp_path / "e", precision=precision, block_size=32, target=target)
    manifest = load_manifest(tmp_path / "e")
    assert (manifest.dialect, manifest.precision.activations) == ("trt", activations)
    narrow = onnx.TensorProto.BFLOAT16 if activations == "bf16" else onnx.TensorProto.FLOAT16
    for name in ("vision", "decoder"):
        path = tmp_path / "e" / f"{name}.onnx"
        onnx.checker.check_model(str(path))
        graph = onnx.load(path, load_external_data=False).graph
        types = _types(graph)
        attentions = 0
        for node in graph.node:
            assert node.domain == ""
            inputs = [types[value] for value in node.input if value in types]
            if node.op_type == "Attention":
                attentions += 1
                assert len(node.output) == 1
                assert len(node.input) <= 4
                assert set(inputs[:3]) == {narrow}
            if node.op_type == "DequantizeLinear":
                assert len(node.input) == 2
            if node.op_type in ("RMSNormalization", "LayerNormalization", "RotaryEmbedding"):
                assert inputs[0] == onnx.TensorProto.FLOAT
            if node.name.endswith("_residual"):
                assert set(inputs) == {onnx.TensorProto.FLOAT}
        assert attentions == (opened.vision.layers if name == "vision" else opened.text.layers)


def test_bfloat16_is_refused_on_a_cpu(tiny_checkpoint, tmp_path):
    opened = open_checkpoint(str(tiny_checkpoint))
    target = Target("trt", "bf16")
    export_engine(opened, tmp_path / "e", precision="int4", block_size=32, target=target)
    cpu = Providers(Provider.CPU, Provider.CPU)
    engine = Engine.open(tmp_path / "e", providers=cpu)
    with pytest.raises(EngineError, match="--activations"):
        engine.new_prefix()


@pytest.mark.parametrize(
    ("name", "precision", "activations", "expected"),
    [
        ("cpu", "int4", None, CPU),
        ("cpu", "fp16", None, Target("ort", "fp16", on_cpu=True)),
        ("cuda", "int4", "fp16", Target("ort", "fp16")),
        ("tensorrt", "int4", None, Target("trt", "bf16")),
        ("tensorrt", "fp16", None, Target("trt", "fp16")),
    ],
)
def test_targets(name, precision, activations, expected):
    assert choose_target(name, precision, activations) == expected


@pytest.mark.parametrize(
    ("name", "precision", "activations"),
    [
        ("cpu", "int4", "fp16"),
        ("cpu", "bf16", None),
        ("cuda", "fp32", None),
        ("tensorrt", "fp16", "bf16"),
        ("openvino", "int4", None),
    ],
)
def test_targets_that_do_not_compute_so(name, precision, activations):
    with pytest.raises(EngineError):
        choose_target(name, precision, activations)


def test_attention_beyond_float16_is_refused():
    _check_attention(["text.layers.0.mlp.gated", "text.layers.0.self_attn.qkv.0"])
    for name in ("text.layers.3.self_attn", "vision.encoder.layers.0.self_attn.qkv.1"):
        with pytest.raises(EngineError, match="choose bf16"):
            _check_attention([name])
