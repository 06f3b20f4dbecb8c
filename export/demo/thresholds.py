"""Write thresholds.json of the demo engine, after every training and every fit of its domain.

`python -m edge_medgemma.export.demo.thresholds --checkpoint FOLDER --engine runtime/engines/demo`

The percentages are those that train.py fitted, and a finding is flagged from an even chance on. Their
sensitivity and specificity are measured on phantoms that nothing was fitted to, each asked for another
number of slices. About ten minutes on two cores.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_medgemma import __version__
from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.calibration.phantoms.evaluation import score_phantom
from edge_medgemma.calibration.phantoms.seeds import EVALUATION_FIRST_SEED
from edge_medgemma.calibration.statistics.metrics import wilson_interval
from edge_medgemma.export.checkpoint.checkpoint import read_json
from edge_medgemma.export.demo.build import PROTOCOL, RECORD_NAME
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.slicing.sampling import MAX_SLICES
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.refinement.coarse_to_fine import FEWEST_SLICES
from edge_medgemma.runtime.triage.report import Effort
from edge_medgemma.runtime.triage.scoring.operating_points import (
    THRESHOLDS_NAME,
    OperatingPoint,
    OperatingPoints,
    ProtocolPoints,
    Rate,
    Sample,
    Split,
    write_operating_points,
)

PHANTOMS = 400
PROTOCOLS = (PROTOCOL, "head_ct")
"""Both ask the engine's findings in the same words."""

Platt = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class ScoredPhantom:
    """What was drawn, and the log-odds that the engine gave it, by finding."""

    drawn: frozenset[str]
    log_odds: Mapping[str, float]


def main() -> None:
    """Parse the command line, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of train.py")
    parser.add_argument("--engine", type=Path, required=True, help="engine directory of build.py")
    parser.add_argument("--phantoms", type=int, default=PHANTOMS)
    options = parser.parse_args()
    seeds = range(EVALUATION_FIRST_SEED, EVALUATION_FIRST_SEED + options.phantoms)
    points = add_thresholds(
        options.checkpoint,
        options.engine,
        seeds,
        lambda done, total: print(f"{done} of {total}", flush=True),
    )
    for one in points.protocols[0].findings:
        rates = f"sensitivity {one.sensitivity.value:.3f}, specificity {one.specificity.value:.3f}"
        print(f"{one.finding}: {rates} on {one.measured_on.studies} phantoms")


def add_thresholds(
    checkpoint: Path,
    directory: Path,
    seeds: Sequence[int],
    on_progress: Callable[[int, int], None] | None = None,
) -> OperatingPoints:
    """Measure an engine on the phantoms of `seeds` and write its thresholds beside the manifest."""
    record = read_json(checkpoint / RECORD_NAME)
    fitted = [draw_phantom(seed, count=1).findings for seed in range(*record["platt_seeds"])]
    with Engine.open(directory) as engine:
        scored = []
        for done, seed in enumerate(seeds, start=1):
            scored.append(_score(engine, seed))
            if on_progress is not None:
                on_progress(done, len(seeds))
        engine_sha256 = engine.manifest.sha256
    platt = read_platt(checkpoint)
    found = tuple(_point(code, platt[code], fitted, scored) for code in FINDINGS)
    protocols = [load_protocol(name) for name in PROTOCOLS]
    points = OperatingPoints(
        schema_version=1,
        program_version=__version__,
        engine_sha256=engine_sha256,
        dataset="phantoms",
        labels_sha256=None,
        cases=(),
        protocols=tuple(
            ProtocolPoints(one.name, one.sha256, Effort.FAST, FEWEST_SLICES, MAX_SLICES, found)
            for one in protocols
        ),
    )
    write_operating_points(points, directory / THRESHOLDS_NAME)
    return points


def read_platt(checkpoint: Path) -> Platt:
    """Slope and intercept by finding, as train.py fitted them."""
    record = read_json(checkpoint / RECORD_NAME)
    return {code: (slope, intercept) for code, (slope, intercept) in record["platt"].items()}


def even_chance(slope: float, intercept: float) -> float:
    """Log-odds at which a finding is as likely present as absent."""
    return -intercept / slope


def _score(engine: Engine, seed: int) -> ScoredPhantom:
    """A phantom, read with a number of slices that is drawn by its seed."""
    phantom = draw_phantom(seed)
    slices = int(np.random.default_rng(seed).integers(FEWEST_SLICES, MAX_SLICES + 1))
    protocol = replace(load_protocol(PROTOCOL), slices=slices)
    return ScoredPhantom(phantom.findings, score_phantom(engine, protocol, phantom))


def _point(
    code: str,
    platt: tuple[float, float],
    fitted: Sequence[frozenset[str]],
    scored: Sequence[ScoredPhantom],
) -> OperatingPoint:
    threshold = even_chance(*platt)
    flagged = {
        present: [
            one.log_odds[code] >= threshold for one in scored if (code in one.drawn) == present
        ]
        for present in (True, False)
    }
    hits, false_flags = sum(flagged[True]), sum(flagged[False])
    return OperatingPoint(
        finding=code,
        threshold=threshold,
        slope=platt[0],
        intercept=platt[1],
        target=None,
        fitted_on=_sample(code, fitted),
        measured_on=_sample(code, [one.drawn for one in scored]),
        split=Split.HELD_OUT,
        sensitivity=_rate(hits, len(flagged[True])),
        specificity=_rate(len(flagged[False]) - false_flags, len(flagged[False])),
    )


def _sample(code: str, drawn: Sequence[frozenset[str]]) -> Sample:
    positives = sum(code in one for one in drawn)
    return Sample(len(drawn), len(drawn), positives, len(drawn) - positives)


def _rate(successes: int, trials: int) -> Rate:
    return Rate(successes, trials, *wilson_interval(successes, trials))


if __name__ == "__main__":
    main()
