"""The standard way up: how stored slices are turned so that all of a kind are shown alike.

Axial: rows run to the back, columns to the patient's left. Coronal: rows to the feet, columns to
the left. Sagittal: rows to the feet, columns to the back. Every DICOM viewer hangs them like this.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", int, float)

ROW_AXIS_OF_PLANE = {2: (1, 1), 1: (2, -1), 0: (2, -1)}
"""By the LPS axis that the normal is nearest to: axis and sign along which rows are to count up."""

COLUMN_AXIS_OF_PLANE = {2: (0, 1), 1: (0, 1), 0: (1, 1)}
"""The same for columns."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Transposition, then flips, of one stored slice."""

    is_transposed: bool = False
    flips_rows: bool = False
    flips_columns: bool = False

    def apply(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Slices [..., rows, columns] the standard way up; contiguous."""
        turned = slices.swapaxes(-1, -2) if self.is_transposed else slices
        if self.flips_rows:
            turned = turned[..., ::-1, :]
        if self.flips_columns:
            turned = turned[..., ::-1]
        return np.ascontiguousarray(turned)

    def sizes(self, along_rows: Number, along_columns: Number) -> tuple[Number, Number]:
        """A count or a spacing of rows and one of columns, afterwards."""
        if self.is_transposed:
            return along_columns, along_rows
        return along_rows, along_columns


AS_STORED = Turn()


def standard_turn(orientation: NDArray[np.float64]) -> Turn:
    """The turn of slices of image orientation (patient) [6] to the standard way up.

    Oblique slices are turned as those of the plane that they are nearest to.
    """
    along_columns, along_rows = orientation[:3], orientation[3:]
    plane = int(np.argmax(np.abs(np.cross(along_columns, along_rows))))
    row_axis, row_sign = ROW_AXIS_OF_PLANE[plane]
    column_axis, column_sign = COLUMN_AXIS_OF_PLANE[plane]
    straight = abs(along_rows[row_axis]) + abs(along_columns[column_axis])
    crossed = abs(along_columns[row_axis]) + abs(along_rows[column_axis])
    is_transposed = bool(crossed > straight)
    if is_transposed:
        along_columns, along_rows = along_rows, along_columns
    return Turn(
        is_transposed,
        flips_rows=bool(along_rows[row_axis] * row_sign < 0),
        flips_columns=bool(along_columns[column_axis] * column_sign < 0),
    )


def turned_affine(
    affine_lps_mm: NDArray[np.float64], turn: Turn, rows: int, columns: int
) -> NDArray[np.float64]:
    """[4, 4] from (slice, row, column, 1) of turned slices, given that of stored ones."""
    turned = affine_lps_mm.copy()
    if turn.is_transposed:
        turned[:, [1, 2]] = turned[:, [2, 1]]
        rows, columns = columns, rows
    if turn.flips_rows:
        turned[:3, 3] += turned[:3, 1] * (rows - 1)
        turned[:3, 1] *= -1
    if turn.flips_columns:
        turned[:3, 3] += turned[:3, 2] * (columns - 1)
        turned[:3, 2] *= -1
    return turned
