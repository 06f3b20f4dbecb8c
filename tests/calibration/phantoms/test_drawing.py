import numpy as np
import pytest

from edge_medgemma.calibration.phantoms.anatomy import (
    FINDINGS,
    FRACTURE,
    HAEMORRHAGE,
    MASS_EFFECT,
    sample_head,
)
from edge_medgemma.calibration.phantoms.drawing import draw_blank, draw_phantom

BONE_HOUNSFIELD = 300.0


def test_same_seed_draws_the_same_voxels():
    first, again = draw_phantom(7, count=3), draw_phantom(7, count=3)
    assert np.array_equal(first.hounsfield, again.hounsfield)
    assert np.array_equal(first.affine_lps_mm, again.affine_lps_mm)
    assert first.findings == again.findings
    assert not np.array_equal(first.hounsfield[0], draw_phantom(8, count=3).hounsfield[0])


def test_some_slices_are_those_of_the_whole_scan():
    whole, some = draw_phantom(11), draw_phantom(11, count=4)
    assert np.array_equal(whole.hounsfield[list(some.slice_indices)], some.hounsfield)


def test_shape_dtype_and_range():
    phantom = draw_phantom(3, count=3)
    assert phantom.hounsfield.dtype == np.float32
    assert phantom.hounsfield.min() >= -1024
    assert phantom.hounsfield.max() <= 3071
    assert np.isfinite(phantom.hounsfield).all()


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_skull_measures_what_the_anatomy_says(seed):
    """Width and length of the outer table near the origin, in mm, through the affine."""
    phantom = draw_phantom(seed, findings=frozenset(), noise=False)
    head = sample_head(np.random.default_rng(seed), frozenset())
    bone = np.argwhere(phantom.hounsfield > BONE_HOUNSFIELD)
    patient_mm = np.c_[bone, np.ones(len(bone))] @ phantom.affine_lps_mm[:3].T
    in_head = (patient_mm - head.centre_lps_mm) @ head.rotation
    middle = in_head[np.abs(in_head[:, 2]) < phantom.spacing_mm[0]]
    extent = np.ptp(middle[:, :2], axis=0)
    expected = 2 * np.array(head.skull_semi_axes_mm[:2])
    assert np.abs(extent - expected).max() < 2 * phantom.spacing_mm[1] + 1.0


def test_affine_has_the_spacing():
    phantom = draw_phantom(4, count=2)
    lengths = np.linalg.norm(phantom.affine_lps_mm[:3, :3], axis=0)
    assert lengths == pytest.approx(phantom.spacing_mm)


def test_findings_are_independent_and_about_half():
    rng = np.random.default_rng(0)
    heads = [sample_head(rng) for _ in range(600)]
    present = np.array(
        [[h.haematoma is not None, h.mass is not None, bool(h.fractures)] for h in heads]
    )
    assert np.abs(present.mean(0) - 0.45).max() < 0.08
    assert np.abs(np.corrcoef(present.T) - np.eye(3)).max() < 0.12


@pytest.mark.parametrize("code", FINDINGS)
def test_a_finding_is_where_it_is_said_to_be(code):
    for seed in range(20, 23):
        phantom = draw_phantom(seed, findings=frozenset([code]))
        assert phantom.findings == {code}
        assert phantom.finding_slices[code]
        assert (
            phantom.finding_masks[code].any(axis=(1, 2))[list(phantom.finding_slices[code])].any()
        )


def _blood_mm2(phantom):
    """Area of 55 to 90 HU in each slice, edges of bone with their partial volume worn away."""
    blood = (phantom.hounsfield > 55) & (phantom.hounsfield < 90)
    for axis in (1, 2):
        blood = blood & np.roll(blood, 1, axis) & np.roll(blood, -1, axis)
    return blood.sum(axis=(1, 2)) * phantom.spacing_mm[1] ** 2


def test_blood_is_dense_and_only_there_when_flagged():
    for seed in range(30, 34):
        bleeding = draw_phantom(seed, findings=frozenset([HAEMORRHAGE]), noise=False, count=8)
        healthy = draw_phantom(seed, findings=frozenset(), noise=False, count=8)
        assert 50 <= np.median(bleeding.hounsfield[bleeding.finding_masks[HAEMORRHAGE]]) <= 90
        assert _blood_mm2(bleeding).max() > 60
        assert _blood_mm2(healthy).max() < 15


def test_mass_shifts_the_midline_away_from_itself():
    phantom = draw_phantom(41, findings=frozenset([MASS_EFFECT]))
    _, _, columns = np.nonzero(phantom.finding_masks[MASS_EFFECT])
    mass_is_left = np.sign(columns.mean() - phantom.hounsfield.shape[2] / 2)
    most = phantom.midline_shift_mm[np.abs(phantom.midline_shift_mm).argmax()]
    assert np.sign(most) == -mass_is_left
    assert 5 <= abs(most) <= 16


def test_fracture_breaks_the_bone():
    for seed in (50, 51):
        broken = draw_phantom(seed, findings=frozenset([FRACTURE]), noise=False)
        slices = list(broken.finding_slices[FRACTURE])
        gap = broken.finding_masks[FRACTURE] & (broken.hounsfield < BONE_HOUNSFIELD)
        assert (gap[slices].sum(axis=(1, 2)) * broken.spacing_mm[1] ** 2 > 15).all()


def test_blank_is_air():
    blank = draw_blank(slices=5, rows=32)
    assert blank.hounsfield.shape == (5, 32, 32)
    assert (blank.hounsfield == -1000).all()
    assert blank.findings == frozenset()
