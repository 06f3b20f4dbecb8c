"""Fit the demo engine's domain to unseen phantoms, after every training.

`python -m edge_medgemma.export.demo.domain --engine runtime/engines/demo`

Draws 160 phantoms, reads each as DICOM as a triage would, and writes domain.safetensors and the
manifest of the engine directory anew. About six minutes on two cores.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edge_medgemma.calibration.domain import CalibrationStudy, fit_domain
from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.calibration.phantoms.seeds import DOMAIN_FIRST_SEED
from edge_medgemma.export.graphs.writer import write_bytes
from edge_medgemma.runtime.domain import DOMAIN_FILE, Domain, dump_domain, pool_tokens
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import MANIFEST_NAME, Manifest, dump_manifest, load_manifest
from edge_medgemma.runtime.slicing.sampling import sample_slices
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.slicing.windows import render_stack
from edge_medgemma.runtime.triage.protocol import load_protocol

PHANTOMS = 160


def main() -> None:
    """Parse the command line and fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path, required=True, help="engine directory of build.py")
    parser.add_argument("--phantoms", type=int, default=PHANTOMS)
    options = parser.parse_args()
    seeds = range(DOMAIN_FIRST_SEED, DOMAIN_FIRST_SEED + options.phantoms)
    manifest = add_phantom_domain(
        options.engine, seeds, lambda done, total: print(f"{done} of {total}", flush=True)
    )
    print(f"{options.engine}: SHA-256 {manifest.sha256}")


def add_phantom_domain(
    directory: Path, seeds: range, on_progress: Callable[[int, int], None] | None = None
) -> Manifest:
    """Fit the domain of an engine to the phantoms of `seeds` and add it to the engine directory."""
    studies = []
    with Engine.open(directory) as engine:
        for done, seed in enumerate(seeds, start=1):
            studies.append(phantom_study(engine, seed))
            if on_progress is not None:
                on_progress(done, len(seeds))
    return add_domain(directory, fit_domain(studies))


def add_domain(directory: Path, domain: Domain) -> Manifest:
    """Write the domain of an engine, in place of an earlier one, and list it in the manifest."""
    manifest = load_manifest(directory)
    record = write_bytes(directory / DOMAIN_FILE, dump_domain(domain))
    manifest = replace(manifest, files={**manifest.files, DOMAIN_FILE: record})
    write_bytes(directory / MANIFEST_NAME, dump_manifest(manifest).encode())
    return manifest


def phantom_study(engine: Engine, seed: int) -> CalibrationStudy:
    """A phantom as triage sees it: written as DICOM, read, sampled, windowed and encoded."""
    with TemporaryDirectory() as folder:
        write_dicom_series(draw_phantom(seed), Path(folder))
        (series,) = find_series(Path(folder)).series
        slices = load_protocol("head_ct_demo").slices
        volume = read_volume(series, sample_slices(series.shape[0], slices))
        features = engine.encode_images(render_stack(volume).pixels)
    pooled = pool_tokens(np.asarray(features))
    return CalibrationStudy(series.modality, series.body_part, pooled)


if __name__ == "__main__":
    main()
