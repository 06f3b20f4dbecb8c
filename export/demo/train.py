"""Train the demonstration checkpoint: `python -m edge_medgemma.export.demo.train --out FOLDER`.

About half an hour on two cores. Everything is drawn from `--seed` and the phantom seeds of
`calibration/phantoms/seeds.py`. `--vision FILE` keeps the first stage's weights, so that the second
can be run again by itself; that is how the committed checkpoint was made.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import Gemma3ForConditionalGeneration

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.calibration.phantoms.seeds import (
    LANGUAGE_FIRST_SEED,
    PLATT_FIRST_SEED,
    TRAINING_SEEDS,
)
from edge_medgemma.calibration.statistics.metrics import area_under_curve, fit_platt
from edge_medgemma.export.demo.checkpoint import (
    Record,
    open_dialogue,
    round_weights,
    write_texts,
    write_weights,
)
from edge_medgemma.export.demo.dialogue import Dialogue
from edge_medgemma.export.demo.language_stage import (
    EncodedScan,
    encode_blanks,
    encode_scans,
    score_scans,
    train_language,
)
from edge_medgemma.export.demo.network import new_network
from edge_medgemma.export.demo.schedule import Schedule
from edge_medgemma.export.demo.vision_stage import PHANTOMS_PER_STEP, train_vision

VISION_SCHEDULE = Schedule(steps=1600, learning_rate=2e-3)
LANGUAGE_SCHEDULE = Schedule(steps=450, learning_rate=1e-3)
LANGUAGE_SCANS = 900
BLANK_SCANS = 12
WATCHED_SCANS = 60
"""Scored while training goes on."""
PLATT_SCANS = 150
THREADS = 1
"""More cost more than they bring for so small a network, and drawing needs a core too."""


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vision", type=Path, help="file to keep the first stage's weights in")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    train(options.out, options.seed, options.vision)


def train(out: Path, seed: int, vision_file: Path | None) -> None:
    """Train both stages and write the checkpoint folder `out`.

    The first stage's weights are read from `vision_file` where it exists, else written to it.
    """
    torch.manual_seed(seed)
    write_texts(out)
    dialogue = open_dialogue(out)
    network = new_network()
    vision_seeds = TRAINING_SEEDS[: VISION_SCHEDULE.steps * PHANTOMS_PER_STEP]
    watched = range(PLATT_FIRST_SEED, PLATT_FIRST_SEED + WATCHED_SCANS)
    if vision_file is not None and vision_file.exists():
        network.load_state_dict(torch.load(vision_file, weights_only=True))
    else:
        train_vision(network, VISION_SCHEDULE, vision_seeds, watched)
        if vision_file is not None:
            torch.save(network.state_dict(), vision_file)
    round_weights(network)
    language_seeds = TRAINING_SEEDS[LANGUAGE_FIRST_SEED : LANGUAGE_FIRST_SEED + LANGUAGE_SCANS]
    scans = [*encode_scans(network, language_seeds), *encode_blanks(network, BLANK_SCANS)]
    platt_seeds = range(PLATT_FIRST_SEED, PLATT_FIRST_SEED + PLATT_SCANS)
    fitted = encode_scans(network, platt_seeds)
    rng = np.random.default_rng(seed)
    train_language(network, dialogue, LANGUAGE_SCHEDULE, scans, fitted[:WATCHED_SCANS], rng)
    round_weights(network)
    platt = _fit(network, dialogue, fitted)
    record = Record(seed, _ends(vision_seeds), _ends(language_seeds), _ends(platt_seeds), platt)
    write_weights(out, network, record)


def _fit(
    network: Gemma3ForConditionalGeneration, dialogue: Dialogue, scans: Sequence[EncodedScan]
) -> dict[str, tuple[float, float]]:
    """The Platt map of each finding; prints how well the scores separate."""
    margins, present = score_scans(network, dialogue, scans)
    platt = {}
    for i, code in enumerate(FINDINGS):
        platt[code] = fit_platt(margins[:, i], present[:, i])
        area = area_under_curve(margins[:, i], present[:, i])
        print(f"{code}: AUC {area:.3f} on {len(scans)} scans, Platt {platt[code]}", flush=True)
    return platt


def _ends(seeds: range) -> tuple[int, int]:
    return seeds.start, seeds.stop


if __name__ == "__main__":
    main()
