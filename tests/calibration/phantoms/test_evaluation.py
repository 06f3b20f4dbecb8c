"""The engine that comes with the package finds what was drawn, and nothing in air."""

import numpy as np
import pytest

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.calibration.phantoms.drawing import draw_blank, draw_phantom
from edge_medgemma.calibration.phantoms.evaluation import evaluate_engine, score_phantom
from edge_medgemma.calibration.phantoms.seeds import EVALUATION_FIRST_SEED
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.scoring.operating_points import read_operating_points

COUNT = 16
LEAST_AREA = 0.8
"""So few phantoms tell little; `edge-medgemma phantom evaluate` measures on 200."""


@pytest.fixture(scope="module")
def engine():
    with Engine.open(BUILTIN_ENGINE, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def protocol():
    return load_protocol("head_ct")


def test_every_finding_is_told_apart_on_unseen_phantoms(engine, protocol):
    calls = []
    qualities = evaluate_engine(
        engine,
        protocol,
        range(EVALUATION_FIRST_SEED, EVALUATION_FIRST_SEED + COUNT),
        lambda done, total: calls.append((done, total)),
    )
    assert [quality.code for quality in qualities] == list(FINDINGS)
    for quality in qualities:
        print(quality.code, quality.area_under_curve)
        assert quality.positives + quality.negatives == COUNT
        assert quality.area_under_curve >= LEAST_AREA
    assert calls[-1] == (COUNT, COUNT)


def test_a_blank_scan_and_a_shuffled_one_are_scored(engine, protocol):
    blank = score_phantom(engine, protocol, draw_blank())
    assert all(np.isfinite(value) for value in blank.values())
    points = read_operating_points(engine.directory).protocols[0].findings
    assert {one.finding for one in points} == set(blank)
    assert all(blank[one.finding] < one.threshold for one in points)
    phantom = draw_phantom(EVALUATION_FIRST_SEED)
    np.random.default_rng(0).shuffle(phantom.hounsfield)
    assert all(np.isfinite(v) for v in score_phantom(engine, protocol, phantom).values())
