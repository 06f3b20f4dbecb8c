from itertools import permutations, product

import numpy as np
import pytest

from edge_medgemma.runtime.slicing.display import Turn, standard_turn, turned_affine
from edge_medgemma.runtime.slicing.scan import find_series, read_volume
from edge_medgemma.runtime.triage.key_images import side_marks

AXES = np.eye(3)
ORIENTATIONS = [
    np.concatenate([AXES[first] * sign, AXES[second] * other])
    for (first, second), sign, other in product(permutations(range(3), 2), (1, -1), (1, -1))
]


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: "".join(f"{x:+g}" for x in o))
def test_every_orientation_is_shown_the_standard_way_up(write_slice, orientation) -> None:
    """A voxel is found at the place in the patient that the affine says, whatever the storage."""
    normal = np.cross(orientation[:3], orientation[3:])
    marked = np.zeros((16, 24), np.int16)
    marked[3, 5] = 900
    for index in range(4):
        pixels = marked if index == 1 else np.zeros_like(marked)
        path = write_slice(
            index,
            ImageOrientationPatient=orientation.tolist(),
            ImagePositionPatient=(normal * 3.0 * index).tolist(),
            pixels=pixels,
            RescaleIntercept=0,
        )
    (series,) = find_series(path.parent).series
    array = read_volume(series).array
    bright = np.argwhere(array == 900)[0]
    expected = normal * 3.0 + orientation[:3] * 0.52 * 5 + orientation[3:] * 0.5 * 3
    np.testing.assert_allclose((series.affine_lps_mm @ [*bright, 1])[:3], expected, atol=1e-9)
    assert array.shape == series.shape
    rows, columns = series.affine_lps_mm[:3, 1], series.affine_lps_mm[:3, 2]
    plane = int(np.argmax(np.abs(normal)))
    down, right = {2: ((0, 1, 0), (1, 0, 0)), 1: ((0, 0, -1), (1, 0, 0))}.get(
        plane, ((0, 0, -1), (0, 1, 0))
    )
    assert rows @ down > 0.4 and columns @ right > 0.4
    assert side_marks(series) == (("R", "L") if plane != 0 else ("", ""))


def test_a_tilted_slice_is_turned_as_its_plane() -> None:
    c, s = np.cos(0.3), np.sin(0.3)
    assert standard_turn(np.array([1, 0, 0, 0, c, s])) == Turn()
    assert standard_turn(np.array([-1, 0, 0, 0, -c, -s])) == Turn(False, True, True)


def test_turning_is_undone_by_the_affine() -> None:
    generator = np.random.default_rng(3)
    affine = np.eye(4)
    affine[:3] = generator.normal(size=(3, 4))
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    for flags in product((False, True), repeat=3):
        turn = Turn(*flags)
        turned, placed = turn.apply(values), turned_affine(affine, turn, 3, 4)
        for row, column in np.ndindex(*turned.shape):
            ((old_row, old_column),) = np.argwhere(values == turned[row, column])
            np.testing.assert_allclose(
                placed @ [0, row, column, 1], affine @ [0, old_row, old_column, 1], atol=1e-12
            )
