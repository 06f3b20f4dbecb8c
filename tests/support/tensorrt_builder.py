"""TensorRT-RTX as a compiler without a GPU: does it take a graph, and how large is the plan?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

Shape = Sequence[int]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""Least, usual and largest shape of each input with a free axis."""

ARCHITECTURES = ("SM86", "SM89")
"""RTX 30 (and, in all but name, Orin's SM 87) and RTX 40."""


def plan_bytes(
    model: bytes, weights: Path, profiles: Sequence[Profile] = (), architecture: str = "SM86"
) -> int:
    """Size of the plan of a graph.

    Args:
        model: contents of an ONNX file
        weights: the file's folder, in which its data lies
        profiles: optimisation profiles
        architecture: one of ARCHITECTURES

    Raises:
        AssertionError: the graph does not parse or build, with the library's own words.
    """
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="the tensorrt-rtx wheel is absent")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(model, str(weights / "graph.onnx"))
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, architecture), 0)
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for name, (least, usual, largest) in shapes.items():
            profile.set_shape(name, least, usual, largest)
        assert config.add_optimization_profile(profile) >= 0
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, "no plan; TensorRT says why on stderr"
    return int(plan.nbytes)
