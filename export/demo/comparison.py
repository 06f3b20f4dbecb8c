"""Cost of each precision for the demo network, on phantoms that nothing was fitted to.

`python -m edge_medgemma.export.demo.comparison --checkpoint FOLDER [--count 200]`
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.calibration.phantoms.seeds import EVALUATION_FIRST_SEED, TRAINING_SEEDS
from edge_medgemma.calibration.phantoms.volume import to_volume
from edge_medgemma.calibration.record import Calibration
from edge_medgemma.calibration.run import calibrate_engine
from edge_medgemma.calibration.slices import sample_calibration_slices
from edge_medgemma.calibration.statistics.metrics import area_under_curve
from edge_medgemma.export.calibrated_export import Budget, export_calibrated
from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.demo.build import BLOCK_SIZE, SCOPE, build_engine
from edge_medgemma.export.demo.thresholds import even_chance, read_platt
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.generation.sampling import log_softmax
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.triage.prefill import prefill_slices
from edge_medgemma.runtime.triage.protocol import load_protocol
from edge_medgemma.runtime.triage.scoring.log_odds import AnswerTokens, log_odds
from edge_medgemma.runtime.triage.scoring.questions import assessed_findings

CALIBRATION_SCANS = 12
CALIBRATION_SLICES = 96
NEAREST = "int4, no calibration"


@dataclass(frozen=True, slots=True)
class EngineQuality:
    """One engine beside the float32 one."""

    name: str
    bytes: int
    kl_nats: float
    """Mean over all answers"""
    flags_flipped: float
    """Share of all answers"""
    area_under_curve: dict[str, float]
    """Area under the ROC curve by finding"""


def main() -> None:
    """Parse the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of train.py")
    parser.add_argument("--count", type=int, default=200, help="unseen phantoms")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        qualities = compare(options.checkpoint, Path(folder), options.count, options.threads)
    if options.json:
        print(json.dumps([asdict(one) for one in qualities], indent=1))
        return
    print(
        f"{'engine':<16}{'MB':>7}{'KL nats':>10}{'flips':>8}"
        + "".join(f"{c:>26}" for c in FINDINGS)
    )
    for one in qualities:
        areas = "".join(f"{one.area_under_curve[code]:>26.4f}" for code in FINDINGS)
        print(
            f"{one.name:<16}{one.bytes / 1e6:>7.2f}{one.kl_nats:>10.2e}{one.flags_flipped:>8.2%}"
            + areas
        )


def compare(
    checkpoint: Path, folder: Path, count: int, threads: int | None
) -> tuple[EngineQuality, ...]:
    """Float32 first, then fp16, int8 and int4 as calibrated, then int4 without calibration.

    Args:
        checkpoint: that train.py wrote
        folder: for engines and scans, empty
        count: of phantoms to measure on
        threads: of the compute pool
    """
    build_engine(checkpoint, folder / "fp32", precision="fp32")
    calibration = _calibrate(folder, threads)
    source = open_checkpoint(str(checkpoint))
    for precision in ("fp16", "int8", "int4"):
        export_calibrated(
            source,
            folder / precision,
            precision=precision,
            block_size=BLOCK_SIZE,
            calibration=calibration,
            budget=Budget(force=True),
            scope=SCOPE,
            threads=threads,
        )
    build_engine(checkpoint, folder / NEAREST)
    seeds = range(EVALUATION_FIRST_SEED, EVALUATION_FIRST_SEED + count)
    present = np.array([[c in draw_phantom(s).findings for c in FINDINGS] for s in seeds])
    thresholds = [even_chance(*read_platt(checkpoint)[code]) for code in FINDINGS]
    names = ("fp32", "fp16", "int8", "int4", NEAREST)
    answers = [np.concatenate(list(_answers(folder / name, seeds, threads))) for name in names]
    return tuple(
        _quality(folder / name, logits, answers[0], present, thresholds)
        for name, logits in zip(names, answers, strict=True)
    )


def _calibrate(folder: Path, threads: int | None) -> Calibration:
    """Calibration on scans of the training set, the other half of the calibration's world."""
    scans = folder / "scans"
    for seed in TRAINING_SEEDS[:CALIBRATION_SCANS]:
        (scans / str(seed)).mkdir(parents=True)
        write_dicom_series(draw_phantom(seed), scans / str(seed))
    slice_set = sample_calibration_slices(sorted(scans.iterdir()), CALIBRATION_SLICES, seed=0)
    with Engine.open(folder / "fp32", threads=threads) as engine:
        return calibrate_engine(engine, slice_set, folder / "calibration.json", threads=threads)


def _answers(
    directory: Path, seeds: Sequence[int], threads: int | None
) -> Iterator[NDArray[np.float32]]:
    """Logits [1, findings, vocabulary] of each phantom, read exactly as triage reads it."""
    protocol = load_protocol("head_ct")
    with Engine.open(directory, threads=threads) as engine:
        findings = {f.code: f for f in assessed_findings(protocol, engine.manifest)}
        questions = [engine.prompt.question(findings[code].question) for code in FINDINGS]
        for seed in seeds:
            phantom = draw_phantom(seed)
            chosen = sample_slices(len(phantom.hounsfield), protocol.slices)
            stack = render_stack(to_volume(phantom, chosen))
            features = engine.encode_images(stack.pixels)
            prefix = prefill_slices(engine, protocol.instruction, len(features), features)
            yield prefix.score(questions)[None]


def _quality(
    directory: Path,
    logits: NDArray[np.float32],
    reference: NDArray[np.float32],
    present: NDArray[np.bool_],
    thresholds: Sequence[float],
) -> EngineQuality:
    with Engine.open(directory) as engine:
        tokens, files = AnswerTokens.of(engine.tokenizer), engine.manifest.files
    log_p, log_q = log_softmax(reference), log_softmax(logits)
    areas, flips = {}, []
    for column, code in enumerate(FINDINGS):
        scores = [log_odds(one, tokens) for one in (reference[:, column], logits[:, column])]
        flagged = np.array(scores) >= thresholds[column]
        flips.append((flagged[0] != flagged[1]).mean())
        areas[code] = area_under_curve(scores[1], present[:, column])
    return EngineQuality(
        name=directory.name,
        bytes=sum(record.bytes for record in files.values()),
        kl_nats=float((np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean()),
        flags_flipped=float(np.mean(flips)),
        area_under_curve=areas,
    )


if __name__ == "__main__":
    main()
