"""Ranges found on one kind of slice cost more on another: what is calibrated on matters."""

from pathlib import Path

import numpy as np
import pytest

from edge_medgemma.calibration.loss.quantization_error import measure_loss
from edge_medgemma.calibration.phantoms.dicom import write_dicom_series
from edge_medgemma.calibration.phantoms.drawing import draw_phantom
from edge_medgemma.calibration.run import calibrate_engine
from edge_medgemma.calibration.slices import sample_calibration_slices
from edge_medgemma.export.calibrated_export import Budget, export_calibrated
from edge_medgemma.export.checkpoint.loader import open_checkpoint
from edge_medgemma.export.demo.build import SCOPE, build_engine
from edge_medgemma.runtime.generation.engine import Engine

CHECKPOINT = Path(__file__).resolve().parents[1] / "data" / "demo_checkpoint"
SHARED_DATA = Path(__file__).resolve().parents[2] / "../shared/data"
REAL_SCANS = ("ct_ge_head_tilt", "mr_decubitus_positions")


def test_ranges_of_phantoms_cost_more_on_real_scans(tmp_path):
    if not SHARED_DATA.is_dir():
        pytest.skip("the real scans in ../shared/data are not on this machine")
    for seed in range(4):
        (tmp_path / "scans" / str(seed)).mkdir(parents=True)
        write_dicom_series(draw_phantom(seed), tmp_path / "scans" / str(seed))
    sets = {
        "phantoms": sorted((tmp_path / "scans").iterdir()),
        "real": [SHARED_DATA / name for name in REAL_SCANS],
    }
    build_engine(CHECKPOINT, tmp_path / "float32", precision="fp32")
    calibrations = {}
    for name, scans in sets.items():
        slice_set = sample_calibration_slices(scans, 16, seed=0)
        with Engine.open(tmp_path / "float32", threads=1) as engine:
            calibrations[name] = calibrate_engine(
                engine, slice_set, tmp_path / f"{name}.json", threads=1
            )
        export_calibrated(
            open_checkpoint(str(CHECKPOINT)),
            tmp_path / name,
            precision="int8",
            block_size=32,
            calibration=calibrations[name],
            budget=Budget(force=True),
            scope=SCOPE,
            threads=1,
        )
    one, other = calibrations.values()
    ratios = np.array([other.vision[name].limit / one.vision[name].limit for name in one.vision])
    assert np.abs(np.log(ratios)).max() > 0.05
    sqnr_db = {}
    for ranges in sets:
        for slices, calibration in calibrations.items():
            with Engine.open(tmp_path / ranges, threads=1) as engine:
                layers = measure_loss(engine, calibration, threads=1).layers
            sqnr_db[ranges, slices] = [x.sqnr_db for x in layers if x.part == "vision"][-1]
    print(sqnr_db)
    assert sqnr_db["real", "real"] > sqnr_db["phantoms", "real"] + 3
