"""Table of the distances of scans from what an engine was calibrated on, beside unseen phantoms.

PYTHONPATH=tests python -m support.domain_table --phantoms 200 SCAN_FOLDER ...
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_medgemma.calibration.phantoms.seeds import EVALUATION_FIRST_SEED
from edge_medgemma.calibration.statistics.metrics import area_under_curve
from edge_medgemma.export.demo.domain import phantom_study
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.domain import pool_tokens, read_domain
from edge_medgemma.runtime.errors import EdgeMedgemmaError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality
from edge_medgemma.runtime.slicing.windows import render_stack

SLICES = 24
MOST_SERIES = 6


def pooled_series(engine: Engine, folder: Path) -> Iterator[tuple[str, np.ndarray, float, float]]:
    """Name, mean image tokens [N, hidden], and seconds a slice of vision and of pooling."""
    for series in find_series(folder).series[:MOST_SERIES]:
        try:
            volume = read_volume(series, sample_slices(series.shape[0], SLICES))
            pixels = render_stack(volume).pixels
        except EdgeMedgemmaError as error:
            print(f"{folder.name}: not shown to any engine: {error}")
            continue
        begin_s = time.perf_counter()
        features = engine.encode_images(pixels)
        encoded_s = time.perf_counter()
        pooled = pool_tokens(features)
        pooled_s = time.perf_counter()
        name = f"{folder.name} {series.modality} {series.body_part}"
        yield (
            name,
            pooled,
            (encoded_s - begin_s) / len(pixels),
            (pooled_s - encoded_s) / len(pixels),
        )


def main() -> None:
    """Print one row for the phantoms and one for each series."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path, default=BUILTIN_ENGINE)
    parser.add_argument("--phantoms", type=int, default=20)
    parser.add_argument("scans", type=Path, nargs="*")
    options = parser.parse_args()
    with Engine.open(options.engine) as engine:
        domain = read_domain(options.engine, engine.manifest)
        part = domain.part(Modality.CT, BodyPart.HEAD) if domain else None
        if part is None:
            raise SystemExit("the engine has no domain for CT of the head")
        seeds = range(EVALUATION_FIRST_SEED, EVALUATION_FIRST_SEED + options.phantoms)
        phantoms = [phantom_study(engine, seed).pooled for seed in seeds]
        found = [part.measure(one) for one in phantoms]
        inside = np.concatenate([part.space.distances(one) for one in phantoms])
        ratios = np.array([one.ratio for one in found])
        print(
            f"{len(found)} unseen phantoms: ratio median {np.median(ratios):.2f}, largest "
            f"{ratios.max():.2f}, false alarms {sum(one.is_unlike for one in found)}"
        )
        for folder in options.scans:
            for name, pooled, vision_s, pooling_s in pooled_series(engine, folder):
                begin_s = time.perf_counter()
                one = part.measure(pooled)
                compare_s = (time.perf_counter() - begin_s) / len(pooled) + pooling_s
                outside = part.space.distances(pooled)
                area = area_under_curve(
                    np.concatenate([inside, outside]),
                    np.repeat([False, True], [len(inside), len(outside)]),
                )
                print(
                    f"{name}: {len(pooled)} slices, AUC {area:.3f}, ratio {one.ratio:.2f}, "
                    f"{'unlike' if one.is_unlike else 'LIKE'}, compare {1e3 * compare_s:.3f} ms a "
                    f"slice, {compare_s / vision_s:.2%} of vision"
                )


if __name__ == "__main__":
    main()
