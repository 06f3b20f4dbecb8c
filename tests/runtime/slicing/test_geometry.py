import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from edge_medgemma.runtime.slicing.geometry import (
    affine_lps_mm,
    is_uniform,
    missing_slices,
    plane_name,
    stack_normal,
    tilt_deg,
)

AXIAL = np.array([1.0, 0, 0, 0, 1, 0])
CORONAL = np.array([1.0, 0, 0, 0, 0, -1])
SAGITTAL = np.array([0.0, 1, 0, 0, 0, -1])

rotations = st.integers(0, 2**32 - 1).map(lambda seed: Rotation.random(random_state=seed))


@pytest.mark.parametrize(
    ("orientation", "normal", "name"),
    [
        (AXIAL, [0, 0, 1], "axial"),
        (-AXIAL, [0, 0, 1], "axial"),
        (AXIAL * [-1, 1, 1, 1, 1, 1], [0, 0, 1], "axial"),  # prone: order is still feet to head
        (CORONAL, [0, 1, 0], "coronal"),
        (SAGITTAL, [1, 0, 0], "sagittal"),
    ],
)
def test_planes(orientation: np.ndarray, normal: list[float], name: str) -> None:
    np.testing.assert_allclose(stack_normal(orientation), normal, atol=1e-12)
    assert plane_name(stack_normal(orientation)) == name


def test_a_plane_between_two_axes_is_oblique() -> None:
    assert plane_name(np.array([0, np.sin(0.7), np.cos(0.7)])) == "oblique"
    assert plane_name(np.array([0, np.sin(0.6), np.cos(0.6)])) == "axial"


@given(rotations)
def test_the_normal_is_perpendicular_and_points_the_positive_way(rotation: Rotation) -> None:
    orientation = rotation.apply(AXIAL.reshape(2, 3)).ravel()
    normal = stack_normal(orientation)
    np.testing.assert_allclose(
        [normal @ orientation[:3], normal @ orientation[3:], normal @ normal], [0, 0, 1], atol=1e-9
    )
    assert normal[np.argmax(np.abs(normal))] > 0


@given(rotations, st.floats(0.2, 20), st.integers(2, 40))
def test_the_affine_finds_every_corner_of_a_regular_stack(
    rotation: Rotation, step_mm: float, count: int
) -> None:
    orientation = rotation.apply(AXIAL.reshape(2, 3)).ravel()
    steps = np.outer(np.arange(count) * step_mm, stack_normal(orientation))
    corners = np.array([5.0, -7, 11]) + steps
    affine = affine_lps_mm(orientation, corners, (0.5, 0.75), step_mm)
    indices = np.stack([np.arange(count), *np.zeros((2, count)), np.ones(count)])
    np.testing.assert_allclose((affine @ indices)[:3].T, corners, atol=1e-8)
    np.testing.assert_allclose(affine[:3, 1] @ orientation[3:], 0.5)
    np.testing.assert_allclose(affine[:3, 2] @ orientation[:3], 0.75)
    assert np.linalg.matrix_rank(affine) == 4


@given(rotations, st.floats(0, 35))
def test_the_tilt_is_the_angle_that_was_put_in(rotation: Rotation, angle_deg: float) -> None:
    orientation = rotation.apply(AXIAL.reshape(2, 3)).ravel()
    step = Rotation.from_rotvec(np.radians(angle_deg) * orientation[:3]).apply(
        stack_normal(orientation)
    )
    corners = np.outer(np.arange(10) * 4.0, step)
    assert tilt_deg(stack_normal(orientation), corners) == pytest.approx(angle_deg, abs=1e-5)


def test_a_stack_without_extent_has_no_tilt() -> None:
    assert tilt_deg(np.array([0, 0, 1.0]), np.zeros((4, 3))) == 0


@given(st.floats(0.3, 10), st.integers(6, 60), st.data())
def test_a_removed_slice_is_found_where_it_was(
    step_mm: float, count: int, data: st.DataObject
) -> None:
    positions = np.arange(count) * step_mm
    lost = data.draw(st.integers(1, count - 2))
    (gap,) = missing_slices(np.delete(positions, lost))
    assert gap == (pytest.approx(positions[lost - 1]), pytest.approx(positions[lost + 1]), 1)
    assert is_uniform(np.delete(positions, lost))
    assert not missing_slices(positions)


def test_two_blocks_of_different_spacing_are_not_missing_slices() -> None:
    positions = np.concatenate([np.arange(14) * 4.0, 53 + np.arange(14) * 7.0])
    assert missing_slices(positions) == []
    assert not is_uniform(positions)


def test_positions_rounded_to_a_tenth_are_uniform() -> None:
    assert is_uniform(np.round(np.arange(40) * 0.625, 1))
    assert not is_uniform(np.array([0, 5, 10, 16, 21, 26.0]))


@pytest.mark.parametrize("orientation", [np.zeros(6), AXIAL * 2, np.array([1.0, 0, 0, 1, 0, 0])])
def test_directions_that_are_no_directions_are_refused(orientation: np.ndarray) -> None:
    with pytest.raises(ValueError, match="perpendicular unit vectors"):
        stack_normal(orientation)
