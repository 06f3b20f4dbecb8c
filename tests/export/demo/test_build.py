"""The committed engine is what the committed checkpoint exports to."""

from pathlib import Path

import numpy as np

from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.calibration.phantoms.evaluation import score_phantom
from edge_medgemma.calibration.phantoms.seeds import PLATT_FIRST_SEED
from edge_medgemma.export.demo.build import build_engine
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.triage.protocol import load_protocol

CHECKPOINT = Path(__file__).resolve().parents[2] / "data" / "demo_checkpoint"
WEIGHT_FILES = ("vision.data", "decoder.data", "tokenizer.json")
MOST_BYTES = 10_000_000
MOST_DIFFERENCE = 0.5
"""In log-odds, which reach from -5 to 5; 0.16 was measured."""


def test_the_committed_engine_is_small_and_says_what_it_is():
    manifest = load_manifest(BUILTIN_ENGINE)
    assert sum(record.bytes for record in manifest.files.values()) < MOST_BYTES
    assert manifest.scope is not None and manifest.scope.is_demonstration
    assert "demonstration only" in manifest.scope.notice
    assert manifest.licence == "Apache-2.0"
    assert manifest.precision.decoder == "int4"


def test_export_again_gives_the_committed_weights(tmp_path):
    manifest = build_engine(CHECKPOINT, tmp_path / "engine")
    committed = load_manifest(BUILTIN_ENGINE)
    assert manifest.scope == committed.scope
    for name in WEIGHT_FILES:
        # numpy rounds the last bit of a few constants, such as cosines, by the processor
        found, expected = (
            np.fromfile(folder / name, np.uint8) for folder in (tmp_path / "engine", BUILTIN_ENGINE)
        )
        assert found.size == expected.size == committed.files[name].bytes
        assert (found != expected).mean() < 1e-3, name


def test_four_bits_answer_as_full_precision_does(tmp_path):
    build_engine(CHECKPOINT, tmp_path / "engine", precision="fp32")
    protocol = load_protocol("head_ct")
    phantoms = [draw_phantom(PLATT_FIRST_SEED + i) for i in range(6)]
    scores = []
    for folder in (tmp_path / "engine", BUILTIN_ENGINE):
        with Engine.open(folder, threads=1) as engine:
            scores.append([[*score_phantom(engine, protocol, p).values()] for p in phantoms])
    full, four = np.array(scores)
    difference = np.abs(full - four)
    print(f"log-odds: max difference {difference.max():.3f}, mean {difference.mean():.3f}")
    assert difference.max() < MOST_DIFFERENCE
