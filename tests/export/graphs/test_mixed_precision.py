"""fp16: a checkpoint whose residual stream overflows float16 is exported exactly all the same."""

import dataclasses

import numpy as np
import onnx
import pytest

from edge_medgemma.calibration.run import calibrate_engine
from edge_medgemma.calibration.slices import CalibrationSlice, SliceSet
from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import write_engine
from edge_medgemma.export.graphs.mixed_precision import fp32_ops
from edge_medgemma.export.quantisation.folding import ScaledTensor
from edge_medgemma.export.quantisation.quant_scheme import plan_export
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality
from edge_medgemma.runtime.triage.prefill import prefill_slices

FLOAT16_MAX = 65504


def slice_set():
    generator = np.random.default_rng(0)
    slices = tuple(
        CalibrationSlice(
            generator.integers(0, 256, (112, 112, 3), dtype=np.uint8),
            i,
            Modality.CT,
            BodyPart.HEAD,
            "medgemma-ct",
            "first third",
        )
        for i in range(3)
    )
    return SliceSet(slices[:2], slices[2:], 1, 3, 0, ())


@pytest.fixture(scope="module")
def huge_checkpoint(tiny_checkpoint):
    """Post-norm weights of tens of thousands, as trained Gemma 3 has of hundreds."""
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    tensors = dict(checkpoint.tensors)
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
            tensors[name] = ScaledTensor(tensor, np.float32(20_000.0), True)
    return dataclasses.replace(checkpoint, tensors=tensors)


@pytest.fixture(scope="module")
def huge_calibration(huge_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("huge")
    (folder / "fp32").mkdir()
    write_engine(plan_export(huge_checkpoint, "fp32", 32), folder / "fp32", None, None)
    with Engine.open(folder / "fp32", threads=1) as engine:
        return calibrate_engine(engine, slice_set(), folder / "calibration.json", threads=1)


def logits(plan, folder):
    folder.mkdir()
    write_engine(plan, folder, None, None)
    with Engine.open(folder, threads=1) as engine:
        features = engine.encode_images(slice_set().slices[0].pixels[None])
        prefix = prefill_slices(engine, "Look.", len(features), features)
        return prefix.score([engine.prompt.question("Is there blood?")])


def test_the_residual_scale_saves_fp16(huge_checkpoint, huge_calibration, tmp_path):
    assert huge_calibration.residual_peak > FLOAT16_MAX
    exact = logits(plan_export(huge_checkpoint, "fp32", 32), tmp_path / "exact")
    raw = logits(plan_export(huge_checkpoint, "fp16", 32), tmp_path / "raw")
    plan = plan_export(huge_checkpoint, "fp16", 32, huge_calibration)
    safe = logits(plan, tmp_path / "safe")
    assert not np.isfinite(raw).all()
    assert plan.residual_scale >= huge_calibration.residual_peak / 16384
    assert plan.residual_scale == 2 ** round(np.log2(plan.residual_scale))
    difference = np.abs(safe - exact)
    print(f"scale {plan.residual_scale} max {difference.max():.1e} mean {difference.mean():.1e}")
    assert difference.max() < 5e-3 * np.ptp(exact)


def test_islands_stay_float32(tiny_checkpoint, huge_calibration, tmp_path):
    """What no residual scale reaches, such as the gated product, keeps float32 around it."""
    name = "text.layers.3.mlp.gated"
    peaks = dict(huge_calibration.peaks) | {name: 30_000.0}
    calibration = dataclasses.replace(huge_calibration, peaks=peaks)
    kept = fp32_ops(peaks, calibration.residual_scale)
    assert name in kept
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    plan = dataclasses.replace(plan_export(checkpoint, "fp16", 32), fp32_ops=kept)
    exact = logits(plan_export(checkpoint, "fp32", 32), tmp_path / "exact")
    half = logits(plan, tmp_path / "half")
    assert np.abs(half - exact).max() < 5e-3 * np.ptp(exact)
    model = onnx.load(tmp_path / "half" / "decoder.onnx", load_external_data=False)
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    assert types[name] == onnx.TensorProto.FLOAT
    assert types["text.layers.3.mlp.down_proj.product"] == onnx.TensorProto.FLOAT
    assert types["text.layers.2.mlp.gated"] == onnx.TensorProto.FLOAT16


def test_stream_peaks_are_judged_after_scaling():
    peaks = {
        "text.layers.0.mlp_residual": 100_000.0,
        "text.layers.0.mlp.gated": 20_000.0,
        "vision.encoder.layers.0.mlp_residual": 20_000.0,
    }
    assert fp32_ops(peaks, 8.0) == (
        "text.layers.0.mlp.gated",
        "vision.encoder.layers.0.mlp_residual",
    )
