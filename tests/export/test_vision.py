import numpy as np
import onnxruntime
import torch


def test_features_equal_transformers(engine, reference):
    pixels = np.random.default_rng(0).standard_normal((2, 3, 112, 112), np.float32)
    session = onnxruntime.InferenceSession(str(engine / "vision.onnx"))
    (found,) = session.run(["image_features"], {"pixel_values": pixels})
    with torch.no_grad():
        expected = reference.model.get_image_features(torch.tensor(pixels)).pooler_output.numpy()
    difference = np.abs(found - expected)
    assert found.shape == (2, 16, 128)
    assert difference.max() < 2e-5, f"max {difference.max():.2e}, mean {difference.mean():.2e}"


def test_one_image_alone_equals_the_same_in_a_batch(engine):
    pixels = np.random.default_rng(0).standard_normal((3, 3, 112, 112), np.float32)
    session = onnxruntime.InferenceSession(str(engine / "vision.onnx"))
    (batch,) = session.run(None, {"pixel_values": pixels})
    (alone,) = session.run(None, {"pixel_values": pixels[1:2]})
    np.testing.assert_allclose(batch[1:2], alone, atol=1e-5)
