"""Exports with a calibration: measured, stamped, refused when they lose too much."""

import dataclasses
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_medgemma.calibration.record import load_calibration
from edge_medgemma.calibration.run import calibrate_engine
from edge_medgemma.calibration.slices import CalibrationSlice, SliceSet
from edge_medgemma.export.calibrated_export import Budget, export_calibrated
from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine
from edge_medgemma.runtime.cli import cli
from edge_medgemma.runtime.domain import DOMAIN_FILE, pool_tokens, read_domain
from edge_medgemma.runtime.errors import CheckpointError, EngineError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality

BANDS = ("first third", "middle third", "last third")


@pytest.fixture(scope="module")
def calibration(tiny_engine, tmp_path_factory):
    """Eight smooth slices of random grey, two of them held out."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (8, 14, 14, 3), dtype=np.uint8)
    slices = tuple(
        CalibrationSlice(
            one.repeat(8, axis=0).repeat(8, axis=1),
            i // 3,
            Modality.CT,
            BodyPart.HEAD,
            "medgemma-ct",
            BANDS[i % 3],
        )
        for i, one in enumerate(pixels)
    )
    path = tmp_path_factory.mktemp("calibration") / "calibration.json"
    slice_set = SliceSet(slices[:6], slices[6:], 1, 3, 0, ())
    return calibrate_engine(tiny_engine, slice_set, path, threads=1)


@pytest.fixture
def export(tiny_checkpoint, calibration, tmp_path):
    def run(precision, **budget):
        return export_calibrated(
            open_checkpoint(str(tiny_checkpoint)),
            tmp_path / "engine",
            precision=precision,
            block_size=32,
            calibration=calibration,
            budget=Budget(**budget),
            threads=1,
        )

    return run


@pytest.mark.parametrize(
    ("precision", "max_kl", "min_cosine"),
    [("fp32", 1e-9, 1 - 1e-6), ("fp16", 1e-4, 0.9999), ("int8", 5e-3, 0.998), ("int4", 0.1, 0.998)],
)
def test_the_loss_is_measured_and_stamped(export, tmp_path, precision, max_kl, min_cosine):
    manifest, loss = export(precision, max_kl=max_kl)
    assert loss.image_cosine > min_cosine
    stored = load_manifest(tmp_path / "engine")
    assert stored == manifest
    record = stored.calibration
    assert record["loss"]["kl_nats"] == loss.kl_nats <= max_kl
    assert record["slices"]["calibrated"] == 6
    assert len(record["findings"]) == len(loss.findings) > 0
    Engine.open(tmp_path / "engine").close()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_an_engine_carries_what_it_was_calibrated_on(
    export, calibration, tmp_path, monkeypatch, precision
):
    monkeypatch.setattr("edge_medgemma.calibration.domain.FEWEST_STUDIES", 3)
    manifest, _ = export(precision, force=True)
    with Engine.open(tmp_path / "engine", threads=1) as engine:
        pixels = np.concatenate([one.pixels[None] for one in calibration.held_out()])
        pooled = pool_tokens(engine.encode_images(pixels))
    (part,) = read_domain(tmp_path / "engine", manifest).parts
    assert (part.kind.modality, part.kind.body_part) == (Modality.CT, BodyPart.HEAD)
    assert part.measure(pooled).ratio < 1.25
    assert part.measure(pooled + 5 * pooled.std()).is_unlike


def test_three_studies_are_too_few_for_a_domain(export):
    manifest, _ = export("fp32", force=True)
    assert DOMAIN_FILE not in manifest.files


def test_searched_int4_loses_less_than_nearest(export, tiny_checkpoint, calibration, tmp_path):
    from edge_medgemma.calibration.loss.quantization_error import measure_loss

    _, searched = export("int4", force=True)
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    export_engine(checkpoint, tmp_path / "nearest", precision="int4", block_size=32)
    with Engine.open(tmp_path / "nearest", threads=1) as engine:
        nearest = measure_loss(engine, calibration, threads=1)
    print(f"KL nearest {nearest.kl_nats:.2e}, searched {searched.kl_nats:.2e}")
    assert searched.kl_nats < 0.75 * nearest.kl_nats
    last = [loss.layers[-1].sqnr_db for loss in (searched, nearest)]
    assert last[0] > last[1] + 3


def test_a_loss_above_the_budget_is_refused(export, tmp_path):
    with pytest.raises(EngineError, match=r"the int4 engine loses .* more than 1e-06"):
        export("int4", max_kl=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_force_keeps_it(export, tmp_path):
    manifest, loss = export("int4", max_kl=1e-6, force=True)
    assert loss.kl_nats > 1e-6
    assert manifest.calibration["loss"]["kl_nats"] == loss.kl_nats


def test_a_target_keeps_maps_in_eight_bits(export, tmp_path):
    _, plain = export("int4", force=True)
    shutil.rmtree(tmp_path / "engine")
    target = plain.kl_nats / 2
    manifest, loss = export("int4", target_kl=target)
    assert loss.kl_nats <= target
    assert manifest.calibration["int8_layers"]


def test_another_checkpoint_is_refused(tiny_checkpoint, calibration, tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    other = dataclasses.replace(checkpoint, fingerprint=lambda: "0" * 64)
    with pytest.raises(CheckpointError, match="with other weights"):
        export_calibrated(
            other,
            tmp_path / "engine",
            precision="int8",
            block_size=32,
            calibration=calibration,
            budget=Budget(),
        )
    assert list(tmp_path.iterdir()) == []


def write_scan(path: Path) -> Path:
    import nibabel as nib

    values = np.random.default_rng(0).random((6, 6, 8)).repeat(5, axis=0).repeat(5, axis=1)
    nib.save(nib.Nifti1Image((values * 900).astype(np.float32), np.eye(4)), path)
    return path


def test_every_vision_map_multiplies_integers(export, tmp_path):
    """In onnxruntime's optimised graph only the projector is still a float product."""
    import onnx
    import onnxruntime

    export("int8")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "engine" / "vision.onnx"), options)
    optimised = onnx.load(tmp_path / "optimised.onnx", load_external_data=False)
    operators = [node.op_type for node in optimised.graph.node]
    assert operators.count("MatMulIntegerToFloat") == 4 * 2
    assert operators.count("MatMul") + operators.count("Gemm") == 1


@pytest.mark.command("calibrate")
def test_the_commands_from_scans_to_engine(tiny_checkpoint, tmp_path):
    scan = write_scan(tmp_path / "mr.nii.gz")
    record, page = tmp_path / "out" / "calibration.json", tmp_path / "loss.html"
    arguments = ["calibrate", str(tiny_checkpoint), str(scan), "-o", str(record), "--slices", "4"]
    made = CliRunner().invoke(cli, [*arguments, "--block-size", "32", "--report", str(page)])
    assert made.exit_code == 0, made.output
    assert made.output.count("single_modality") == 1
    assert [line.split()[0] for line in made.stdout.splitlines()[-4:-1]] == ["fp16", "int8", "int4"]
    text = page.read_text()
    assert text.count("<polyline") >= 3
    assert "data:image/png;base64," in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert not (record.parent / "calibration.data" / "float32-engine").exists()

    engine = tmp_path / "engine"
    arguments = ["export", str(tiny_checkpoint), "-o", str(engine), "--calibration", str(record)]
    made = CliRunner().invoke(cli, [*arguments, "--precision", "int8", "--block-size", "32"])
    assert made.exit_code == 0, made.output
    assert load_manifest(engine).precision.vision == "int8"


KILLED_AFTER = """
import os, signal, sys
from pathlib import Path
import edge_medgemma.export.quantisation.int4_search as searched
from edge_medgemma.calibration.record import load_calibration
from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.engine import export_engine

checkpoint, calibration, engine, limit = sys.argv[1:]
save, saved = searched.save_group, []

def save_and_die(*arguments):
    save(*arguments)
    saved.append(arguments[0])
    if len(saved) == int(limit):
        os.kill(os.getpid(), signal.SIGKILL)

searched.save_group = save_and_die
export_engine(open_checkpoint(checkpoint), Path(engine), precision="int4", block_size=32,
              calibration=load_calibration(Path(calibration)))
"""


@pytest.mark.parametrize("limit", [1, 20])
def test_a_killed_export_does_not_search_twice(
    export, tiny_checkpoint, calibration, tmp_path, limit
):
    """28 linear layers have 4 bits: killed at the first and among the last."""
    folder = tmp_path / "calibration.data"
    shutil.copytree(calibration.folder, folder, ignore=shutil.ignore_patterns("searched.*"))
    record = tmp_path / "calibration.json"
    shutil.copy(calibration.folder.with_name("calibration.json"), record)
    arguments = [str(tiny_checkpoint), str(record), str(tmp_path / "killed"), str(limit)]
    done = subprocess.run([sys.executable, "-c", KILLED_AFTER, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("searched.*")}
    assert len(kept) == limit
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    manifest = export_engine(
        checkpoint,
        tmp_path / "killed",
        precision="int4",
        block_size=32,
        calibration=load_calibration(record),
    )
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    whole, _ = export("int4", force=True)
    assert manifest.files == whole.files


def test_a_budget_for_random_weights_is_a_usage_error(tmp_path):
    arguments = ["export", "--synthetic", "tiny", "-o", str(tmp_path / "e"), "--max-kl", "1"]
    made = CliRunner().invoke(cli, arguments)
    assert made.exit_code == 2
    assert "go with a CHECKPOINT" in made.stderr
