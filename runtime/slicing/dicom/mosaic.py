"""Siemens mosaics: one image whose tiles are the slices of a volume.

Count, order and step of the tiles stand only in the private CSA header; the layout is that of the
smallest square grid that holds them, row by row (as nibabel's `nicom` and dcm2niix read it).
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from edge_medgemma.runtime.slicing.dicom.frames import Frame
from edge_medgemma.runtime.slicing.files.discovery import UnreadableFileError

with warnings.catch_warnings():  # the package calls itself experimental whenever it is imported
    warnings.simplefilter("ignore")
    from nibabel.nicom import csareader

CSA_GROUP, CSA_CREATOR, CSA_IMAGE_HEADER = 0x0029, "SIEMENS CSA HEADER", 0x10

UNIT_TOLERANCE = 1e-3
"""Deviation of the slice normal from the perpendicular of the plane; it carries 8 decimals."""


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The tiles of one image."""

    count: int
    rows: int
    columns: int
    """Columns of one tile."""
    tiles_across: int
    step_mm: tuple[float, float, float]
    """LPS vector from one tile's slice to the next one's."""

    def corner_mm(
        self,
        tile: int,
        image_corner_mm: tuple[float, ...],
        orientation: tuple[float, ...],
        pixel_spacing_mm: tuple[float, float],
    ) -> tuple[float, ...]:
        """LPS of the centre of a tile's first pixel.

        Image position (patient) of a mosaic is where the image's corner would be if the whole
        image were one plane around the centre of the slice.
        """
        half_rows = self.rows * (self.tiles_across - 1) / 2
        half_columns = self.columns * (self.tiles_across - 1) / 2
        corner = (
            np.array(image_corner_mm)
            + np.array(orientation[3:]) * pixel_spacing_mm[0] * half_rows
            + np.array(orientation[:3]) * pixel_spacing_mm[1] * half_columns
            + np.array(self.step_mm) * tile
        )
        return tuple(corner.tolist())

    def cut(self, image: NDArray[np.float32], tile: int) -> NDArray[np.float32]:
        """Tile [rows, columns] of the image."""
        top = tile // self.tiles_across * self.rows
        left = tile % self.tiles_across * self.columns
        return image[top : top + self.rows, left : left + self.columns]


def is_mosaic(dataset: Dataset) -> bool:
    """Whether image type (0008,0008) says MOSAIC, as Siemens writes it."""
    return "MOSAIC" in Frame(dataset, 0).term("ImageType").split("\\")


def read_mosaic(dataset: Dataset) -> Mosaic:
    """The tiles of a data set that `is_mosaic`, read with its private elements.

    Raises:
        UnreadableFileError: the private header is not there, or contradicts the image.
    """
    tags = _csa_tags(dataset)
    counts = _numbers(tags, "NumberOfImagesInMosaic", 1)
    normal = _numbers(tags, "SliceNormalVector", 3)
    frame = Frame(dataset, 0)
    step_mm = frame.number("SpacingBetweenSlices") or frame.number("SliceThickness")
    orientation = frame.numbers("ImageOrientationPatient", "", 6)
    if not counts or not normal or not step_mm or not orientation:
        raise _refusal("the private header does not give its tiles")
    tiles_across = math.ceil(math.sqrt(counts[0])) if counts[0] >= 1 else 0
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if not tiles_across or rows % tiles_across or columns % tiles_across:
        raise _refusal("the image is not a grid of as many tiles as it says")
    across = np.cross(orientation[:3], orientation[3:])
    if abs(abs(across @ np.array(normal)) - 1) > UNIT_TOLERANCE:
        raise _refusal("its slice normal is not that of its plane")
    x, y, z = (step_mm * part for part in normal)
    return Mosaic(
        int(counts[0]), rows // tiles_across, columns // tiles_across, tiles_across, (x, y, z)
    )


def _csa_tags(dataset: Dataset) -> dict[str, Any]:
    try:
        header = dataset.get_private_item(CSA_GROUP, CSA_IMAGE_HEADER, CSA_CREATOR).value
    except KeyError as error:
        raise _refusal("its private header was removed") from error
    try:
        tags: dict[str, Any] = csareader.read(header)["tags"]
    # the reader meets damage with whatever error the bytes lead to
    except Exception as error:
        raise _refusal("its private header is damaged") from error
    return tags


def _numbers(tags: dict[str, Any], name: str, count: int) -> tuple[float, ...]:
    """`count` finite numbers of a CSA tag, or none."""
    items = tags.get(name, {}).get("items", [])[:count]
    is_numeric = all(isinstance(item, (int, float)) and math.isfinite(item) for item in items)
    return tuple(float(item) for item in items) if is_numeric and len(items) == count else ()


def _refusal(why: str) -> UnreadableFileError:
    return UnreadableFileError(f"mosaic of tiles: {why}; export it as single slices")
