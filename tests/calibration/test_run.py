"""The calibration as a whole: right numbers, refusals, and going on after a kill."""

import dataclasses
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.calibration.passes.layer_runner import GraphStages, StageSession
from edge_medgemma.calibration.prompts import build_prompts
from edge_medgemma.calibration.record import data_folder, load_calibration
from edge_medgemma.calibration.run import calibrate_engine, check_memory
from edge_medgemma.runtime.errors import EngineError, ResourceError
from edge_medgemma.runtime.generation.prompt import Chunk

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from edge_medgemma.calibration.run import calibrate_engine
from edge_medgemma.calibration.slices import sample_calibration_slices
from edge_medgemma.runtime.generation.engine import Engine

engine, output, stage, *scans = sys.argv[1:]

def kill(done, total):
    if done == int(stage):
        os.kill(os.getpid(), signal.SIGKILL)

slice_set = sample_calibration_slices([Path(scan) for scan in scans], 8, seed=0)
calibrate_engine(Engine.open(Path(engine)), slice_set, Path(output), threads=1, on_progress=kill)
"""


@pytest.mark.parametrize("stage", [1, 2, 6])
def test_a_killed_run_goes_on_where_it_stopped(
    stage, tiny_engine, tiny_engine_directory, scans, slice_set, calibration, tmp_path
):
    output = tmp_path / "calibration.json"
    arguments = [str(tiny_engine_directory), str(output), str(stage), *map(str, scans)]
    done = subprocess.run([sys.executable, "-c", KILLED_AT, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    kept = {path: path.stat().st_mtime_ns for path in data_folder(output).glob("*.npz")}
    assert kept
    calibrate_engine(tiny_engine, slice_set, output, threads=1)
    again = load_calibration(output)
    finished = [path for path in kept if "_stream." not in path.name]
    assert all(path.stat().st_mtime_ns == kept[path] for path in finished)
    assert again.vision == calibration.vision
    assert again.peaks == calibration.peaks
    np.testing.assert_array_equal(again.answers(), calibration.answers())
    assert not list(data_folder(output).glob("*_stream.*"))


def copy_of(calibration_path, folder):
    """A copy of a calibration with its arrays, file times included."""
    shutil.copytree(data_folder(calibration_path), data_folder(folder / "calibration.json"))
    return Path(shutil.copy2(calibration_path, folder / "calibration.json"))


def test_a_half_written_group_does_not_count(calibration_path, tmp_path):
    output = copy_of(calibration_path, tmp_path)
    folder = data_folder(output)
    (folder / "decoder.3.npz").unlink()
    (folder / ".decoder.3.npz.abc").write_bytes(b"half")
    with pytest.raises(EngineError, match=r"decoder\.3\.npz' is missing or altered"):
        load_calibration(output)


def test_another_seed_starts_over(tiny_engine, slice_set, calibration_path, tmp_path):
    output = copy_of(calibration_path, tmp_path)
    before = (data_folder(output) / "vision.0.npz").stat().st_mtime_ns
    calibrate_engine(tiny_engine, dataclasses.replace(slice_set, seed=5), output, threads=1)
    assert (data_folder(output) / "vision.0.npz").stat().st_mtime_ns != before


def test_answers_are_those_of_the_engine(tiny_engine, calibration):
    """Layer by layer in one pass, or as a triage reads it: the same logits."""
    slices = calibration.held_out()
    prompts = build_prompts(tiny_engine, slices, range(len(slices)))
    logits = []
    for prompt in prompts:
        features = np.concatenate(
            [tiny_engine.encode_images(slices[i].pixels[None]) for i in prompt.slices]
        )
        prefix = tiny_engine.new_prefix()
        first_question = int(np.argmax(prompt.rows.branches >= 0))
        prefix.extend(Chunk(prompt.ids[:first_question], len(features)), features)
        ends = [*(prompt.logit_rows + 1).tolist()]
        begins = [first_question, *ends[:-1]]
        logits.append(prefix.score([prompt.ids[b:e] for b, e in zip(begins, ends, strict=True)]))
    difference = np.abs(np.concatenate(logits) - calibration.answers())
    assert difference.max() < 1e-4, f"max {difference.max():.1e} mean {difference.mean():.1e}"


def test_stages_give_what_the_graph_gives(tiny_engine):
    vision = tiny_engine.manifest.vision
    pixels = np.random.default_rng(0).integers(0, 255, (1, 112, 112, 3), dtype=np.uint8)
    expected = tiny_engine.encode_images(pixels)
    from edge_medgemma.runtime.generation.images import to_pixel_values

    stages = GraphStages(tiny_engine.directory, "vision")
    stream = to_pixel_values(pixels, vision)
    for index in range(len(stages)):
        stage = stages.stage(index)
        session = StageSession(stage, stages.directory, 1)
        name = stage.stream_input or "pixel_values"
        stream = session.run({name: stream}, [stage.stream_output])[stage.stream_output]
    assert np.abs(stream - expected).max() < 1e-5


def test_the_largest_residual_is_found(calibration, tiny_engine):
    peaks = [v for k, v in calibration.peaks.items() if k.endswith("6.mlp_residual")]
    assert calibration.residual_peak >= peaks[0] > 0
    assert calibration.residual_scale == 1
    huge = dataclasses.replace(calibration, peaks={"text.layers.0.mlp_residual": 200_000.0})
    assert huge.residual_scale == 16


def test_no_pixel_or_path_is_in_the_record(calibration_path, scans):
    text = calibration_path.read_text()
    assert str(scans[0].parent) not in text
    assert not any(scan.name in text for scan in scans)


def test_a_quantised_engine_is_refused(tiny_checkpoint, slice_set, tmp_path):
    from edge_medgemma.export.checkpoint.loader import open_checkpoint
    from edge_medgemma.export.engine import export_engine
    from edge_medgemma.runtime.generation.engine import Engine

    export_engine(
        open_checkpoint(str(tiny_checkpoint)), tmp_path / "e", precision="int8", block_size=32
    )
    with pytest.raises(EngineError, match="quantised already"):
        calibrate_engine(Engine.open(tmp_path / "e"), slice_set, tmp_path / "c.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e"]


def test_too_little_memory_is_said_before_starting():
    with pytest.raises(ResourceError, match=r"needs about 1000000\.0 GB of memory"):
        check_memory(10**15)


def test_a_damaged_record_is_refused(calibration_path: Path, tmp_path):
    copy = tmp_path / "calibration.json"
    copy.write_text(calibration_path.read_text()[:-30])
    with pytest.raises(EngineError, match="is altered or not a calibration"):
        load_calibration(copy)
    copy.write_text(calibration_path.read_text().replace("1", "2", 1))
    with pytest.raises(EngineError, match="is altered or not a calibration"):
        load_calibration(copy)
    with pytest.raises(EngineError, match="no calibration at"):
        load_calibration(tmp_path / "none.json")


def test_an_overflowing_engine_is_refused(tiny_engine, slice_set, tmp_path, monkeypatch):
    from edge_medgemma.calibration.run import _Run

    monkeypatch.setattr(
        _Run, "_pixel_values", lambda self, n: np.full((1, 3, 112, 112), np.nan, np.float32)
    )
    with pytest.raises(EngineError, match="not finite at 'vision"):
        calibrate_engine(tiny_engine, slice_set, tmp_path / "c.json", threads=1)
    assert not (tmp_path / "c.json").exists()
