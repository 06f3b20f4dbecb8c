from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from edge_medgemma.calibration.slices import POSITION_BANDS, sample_calibration_slices
from edge_medgemma.runtime.errors import ScanError


def test_slices_are_spread_over_modality_and_position(scans):
    slice_set = sample_calibration_slices(scans, 12, seed=0)
    counts = Counter((one.modality, one.band) for one in slice_set.slices)
    assert set(counts) == {(m, band) for m in ("CT", "MR") for band in POSITION_BANDS}
    assert set(counts.values()) == {2}
    assert slice_set.warnings == ()


def test_held_out_slices_come_from_other_series(scans):
    slice_set = sample_calibration_slices(scans, 12, seed=0)
    assert len(slice_set.held_out) == 3
    assert not {one.series for one in slice_set.slices} & {one.series for one in slice_set.held_out}


def test_a_lone_series_shares_its_slices(scans):
    slice_set = sample_calibration_slices(scans[:1], 4, seed=0)
    seen = {one.pixels.tobytes() for one in slice_set.slices}
    assert not seen & {one.pixels.tobytes() for one in slice_set.held_out}


def test_the_seed_is_the_draw(scans):
    hashes = [sample_calibration_slices(scans, 6, seed=seed).sha256 for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_single_modality_is_warned_of(scans):
    (warning,) = sample_calibration_slices(scans[:1], 4, seed=0).warnings
    assert "only CT" in warning


def test_air_alone_is_refused(tmp_path: Path):
    noise = np.random.default_rng(0).normal(-1000, 10, (16, 16, 5))
    air = np.rint(noise).astype(np.float32)
    nib.save(nib.Nifti1Image(air, np.eye(4)), tmp_path / "air.nii.gz")
    with pytest.raises(ScanError, match="no slice to calibrate on") as refusal:
        sample_calibration_slices([tmp_path / "air.nii.gz"], 4, seed=0)
    assert "\n" not in str(refusal.value)
