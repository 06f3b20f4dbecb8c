from dataclasses import replace

import numpy as np
import pytest
from support.synthetic_series import bare_series

from edge_medgemma.runtime.slicing.volume import BodyPart, Problem
from edge_medgemma.runtime.triage.key_images import side_marks


def affine(column_direction) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 2] = np.array(column_direction) * 0.5
    return matrix


@pytest.mark.parametrize(
    ("column_direction", "marks"),
    [
        ((1, 0, 0), ("R", "L")),
        ((-1, 0, 0), ("L", "R")),
        ((0, 1, 0), ("", "")),
        ((0.8, 0.6, 0), ("", "")),
        ((0, 0, 0), ("", "")),
    ],
)
def test_sides_come_from_the_affine(column_direction, marks) -> None:
    one = replace(bare_series(part=BodyPart.HEAD), affine_lps_mm=affine(column_direction))
    assert side_marks(one) == marks


def test_sides_are_not_marked_where_they_are_not_known() -> None:
    one = replace(bare_series(), affine_lps_mm=affine((1, 0, 0)))
    assert side_marks(replace(one, problems=(Problem("sides_not_stated", ""),))) == ("", "")
    made_up = replace(one, problems=(Problem("no_positions", "Positions are not given."),))
    assert side_marks(made_up) == ("", "")
