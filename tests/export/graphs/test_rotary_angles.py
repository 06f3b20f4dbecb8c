"""Rotary tables of a long context: at position 131,071 they are what transformers computes."""

import numpy as np
import onnxruntime
import pytest

from edge_medgemma.export.graphs.decoder import inverse_frequencies
from edge_medgemma.runtime.backends.onnx_writer import Value, one_node_model

POSITIONS = np.array([[0], [1], [1024], [32_768], [65_535], [100_000], [131_071]], np.int64)

TOLERANCE = 2e-7
"""Of numbers up to 1, in float32."""


@pytest.mark.parametrize(("theta", "factor"), [(1e6, 8.0), (1e4, 1.0)])
@pytest.mark.parametrize(("operator", "exact"), [("Cos", np.cos), ("Sin", np.sin)])
def test_far_angles_are_reduced_exactly(theta, factor, operator, exact) -> None:
    """Angles themselves are float32, as in training: at 100,000 they are off by up to 0.004."""
    angles = POSITIONS.astype(np.float32) * inverse_frequencies(256, theta, factor)[0]
    model = one_node_model(
        operator, "", {"x": Value("float32", 2)}, {}, {"y": Value("float32", 2)}, {}
    )
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (table,) = session.run(None, {"x": angles})
    assert np.abs(table - exact(angles.astype(np.float64))).max() < TOLERANCE


def test_frequencies_are_those_of_transformers() -> None:
    from transformers import Gemma3TextConfig
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding

    rotary = Gemma3RotaryEmbedding(
        Gemma3TextConfig(
            head_dim=256,
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        )
    )
    for kind, theta, factor in (("full", 1e6, 8.0), ("sliding", 1e4, 1.0)):
        theirs = getattr(rotary, f"{kind}_attention_inv_freq").numpy()
        ours = inverse_frequencies(256, theta, factor)[0, 0]
        # A unit of float32: over 100,000 tokens of a global layer 0.001 of an angle.
        assert np.abs(ours / theirs - 1).max() < 1.3e-7, kind
