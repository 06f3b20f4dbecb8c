"""Small scans of two modalities, and one calibration of the tiny engine on them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from edge_medgemma.calibration.record import Calibration
from edge_medgemma.calibration.run import calibrate_engine
from edge_medgemma.calibration.slices import SliceSet, sample_calibration_slices
from edge_medgemma.runtime.generation.engine import Engine


def smooth_field(seed: int, slices: int) -> np.ndarray:
    """[32, 32, slices] in 0..1, of a few pixels' scale."""
    coarse = np.random.default_rng(seed).random((8, 8, slices))
    return coarse.repeat(4, axis=0).repeat(4, axis=1)


def write_scan(path: Path, seed: int, *, is_ct: bool, slices: int = 9) -> Path:
    """A NIfTI file, for CT of half air and half soft tissue; other values are taken for MR."""
    values = smooth_field(seed, slices)
    values = np.where(values < 0.5, -1000, np.rint(values * 300 - 150)) if is_ct else values * 900
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([1.0, 1.0, 3.0, 1.0])), path)
    return path


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two CT and two MR volumes."""
    folder = tmp_path_factory.mktemp("scans")
    return tuple(
        write_scan(folder / f"{kind}{i}.nii.gz", 10 * i + (kind == "ct"), is_ct=kind == "ct")
        for i in range(2)
        for kind in ("ct", "mr")
    )


@pytest.fixture(scope="session")
def slice_set(scans: tuple[Path, ...]) -> SliceSet:
    return sample_calibration_slices(scans, 8, seed=0)


@pytest.fixture(scope="session")
def calibration_path(
    tiny_engine: Engine, slice_set: SliceSet, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "calibration.json"
    calibrate_engine(tiny_engine, slice_set, path, threads=1)
    return path


@pytest.fixture(scope="session")
def calibration(calibration_path: Path) -> Calibration:
    from edge_medgemma.calibration.record import load_calibration

    return load_calibration(calibration_path)
