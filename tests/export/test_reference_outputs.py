"""Engines for a device carry the CPU's answers, which the same weights in 16 bits reproduce."""

import numpy as np
import pytest
from click.testing import CliRunner

from edge_medgemma.calibration.run import calibrate_engine
from edge_medgemma.calibration.slices import CalibrationSlice, SliceSet
from edge_medgemma.export.calibrated_export import Budget, export_calibrated
from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.target import Target
from edge_medgemma.runtime.backends.self_test.reference_outputs import (
    REFERENCE_OUTPUTS_NAME,
    check,
    load_reference_outputs,
)
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.self_test import compare_with_reference
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality
from edge_medgemma.runtime.store.integrity import check_engine


def export(folder, *options):
    arguments = ["export", "--synthetic", "tiny", "-o", str(folder), "--block-size", "32"]
    return CliRunner().invoke(cli, [*arguments, *options])


def reference_of(folder):
    return load_reference_outputs(folder, load_manifest(folder).files)


def self_test(folder):
    check_engine(folder, load_manifest(folder))
    with Engine.open(folder, threads=1) as engine:
        return compare_with_reference(engine, reference_of(folder))


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_a_float16_engine_passes_its_own_test(tmp_path, target):
    made = export(tmp_path / "engine", "--target", target, "--activations", "fp16")
    assert made.exit_code == 0, made.output
    comparison = self_test(tmp_path / "engine")
    print(comparison)
    check(comparison, target)
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]


def test_a_bfloat16_engine_has_the_outputs_of_its_weights_in_float32(tmp_path):
    """Of 8 bits: 4-bit weights for TensorRT have positive scales, and so are others."""
    int8 = ("--precision", "int8")
    assert export(tmp_path / "bf16", "--target", "tensorrt", *int8).exit_code == 0
    assert load_manifest(tmp_path / "bf16").precision.activations == "bf16"
    assert export(tmp_path / "cpu", *int8).exit_code == 0
    with Engine.open(tmp_path / "cpu", threads=1) as engine:
        comparison = compare_with_reference(engine, reference_of(tmp_path / "bf16"))
    print(comparison)
    check(comparison, "cpu")


def test_reference_outputs_are_optional(tmp_path):
    made = export(tmp_path / "engine", "--target", "tensorrt", "--no-reference-outputs")
    assert made.exit_code == 0, made.output
    assert REFERENCE_OUTPUTS_NAME not in load_manifest(tmp_path / "engine").files
    assert reference_of(tmp_path / "engine") is None


def test_a_target_that_cannot_compute_so_is_one_sentence(tmp_path):
    made = export(tmp_path / "engine", "--target", "tensorrt", "--precision", "fp32")
    assert made.exit_code != 0
    assert "no float32 attention" in str(made.exception or made.output)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def calibration(tiny_engine, tmp_path_factory):
    """Four slices of coarse grey, one of them held out."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 14, 14, 3), dtype=np.uint8)
    slices = tuple(
        CalibrationSlice(
            one.repeat(8, axis=0).repeat(8, axis=1),
            number,
            Modality.CT,
            BodyPart.HEAD,
            "medgemma-ct",
            "first third",
        )
        for number, one in enumerate(pixels)
    )
    path = tmp_path_factory.mktemp("calibration") / "calibration.json"
    return calibrate_engine(tiny_engine, SliceSet(slices[:3], slices[3:], 1, 3, 0, ()), path)


@pytest.mark.parametrize("precision", ["int4", "fp16"])
def test_a_calibrated_engine_for_tensorrt(tiny_checkpoint, calibration, tmp_path, precision):
    """Int8 inputs of the tower, searched int4 and the fp16 scale, in the dialect of TensorRT."""
    manifest, loss = export_calibrated(
        open_checkpoint(str(tiny_checkpoint)),
        tmp_path / "engine",
        precision=precision,
        block_size=32,
        calibration=calibration,
        budget=Budget(max_kl=0.2),
        target=Target("trt", "fp16"),
        with_reference_outputs=True,
        threads=1,
    )
    assert manifest.dialect == "trt"
    assert manifest.precision.vision == ("int8" if precision == "int4" else "fp16")
    assert manifest.calibration["loss"]["kl_nats"] == loss.kl_nats
    comparison = self_test(tmp_path / "engine")
    print(comparison)
    check(comparison, "tensorrt")
