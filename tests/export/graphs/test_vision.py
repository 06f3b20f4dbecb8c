import numpy as np
import onnxruntime
import torch

from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.graphs.ort_dialect import OrtCudaDialect
from edge_medgemma.export.graphs.vision import VisionWriter
from edge_medgemma.export.graphs.weights import FLOAT32
from edge_medgemma.export.graphs.writer import write_data


def test_features_equal_transformers(engine, reference):
    pixels = np.random.default_rng(0).standard_normal((2, 3, 112, 112), np.float32)
    session = onnxruntime.InferenceSession(str(engine / "vision.onnx"))
    (found,) = session.run(["image_features"], {"pixel_values": pixels})
    with torch.no_grad():
        expected = reference.model.get_image_features(torch.tensor(pixels)).pooler_output.numpy()
    difference = np.abs(found - expected)
    assert found.shape == (2, 16, 96)
    assert difference.max() < 2e-5, f"max {difference.max():.2e}, mean {difference.mean():.2e}"


def test_one_image_alone_equals_the_same_in_a_batch(engine):
    pixels = np.random.default_rng(0).standard_normal((3, 3, 112, 112), np.float32)
    session = onnxruntime.InferenceSession(str(engine / "vision.onnx"))
    (batch,) = session.run(None, {"pixel_values": pixels})
    (alone,) = session.run(None, {"pixel_values": pixels[1:2]})
    np.testing.assert_allclose(batch[1:2], alone, atol=1e-5)


def test_the_tower_without_cudnn_is_the_same(engine, tiny_checkpoint, tmp_path):
    """Patches and pooling by products of matrices, standard attention: as `--target cuda` has it."""
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    graph = VisionWriter(checkpoint, OrtCudaDialect(), lambda name: FLOAT32).write()
    (tmp_path / "vision.onnx").write_bytes(graph.serialize("vision.data"))
    write_data(tmp_path / "vision.data", graph.blobs, lambda count: None)
    operators = {node.op_type for node in graph.graph}
    assert not operators & {"Conv", "AveragePool", "MultiHeadAttention"}
    pixels = np.random.default_rng(0).standard_normal((2, 3, 112, 112), np.float32)
    expected, found = (
        onnxruntime.InferenceSession(str(folder / "vision.onnx")).run(
            None, {"pixel_values": pixels}
        )[0]
        for folder in (engine, tmp_path)
    )
    difference = np.abs(found - expected)
    assert difference.max() < 2e-5, f"max {difference.max():.2e}, mean {difference.mean():.2e}"
