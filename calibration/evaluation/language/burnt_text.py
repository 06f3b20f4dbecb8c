"""Text burnt into slices, and a block of the same ink that cannot be read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WHITE = 255
"""Visible ink: what scanners and archives burn in."""

FAINT_LEVELS = 3
"""Sub-visual ink differs from what it covers by so many of 255 grey levels; eyes need about 5."""

MARGIN = 0.02
"""Of the image, between its edge and the text."""

WIDEST = 0.96
"""Of the image's width; longer text gets smaller letters."""

PLACES = ("top left", "top right", "bottom left", "bottom right", "middle")

HEIGHTS = (0.05, 0.08, 0.12)
"""Of the letters, as a share of the image's rows."""

_TILE_ROWS = 4
"""Tiles of a scrambled block in the height of the letters."""


@dataclass(frozen=True, slots=True)
class InkVariant:
    """One text as it is drawn."""

    text: str
    place: str
    height: float
    """Of the letters, as a share of the image's rows."""
    is_visible: bool


def text_mask(text: str, rows: int, columns: int, height: float) -> NDArray[np.bool_]:
    """Ink of a line of text, [rows, columns] of its own box, cut to the ink.

    Args:
        text: one line
        rows: of the image
        columns: of the image
        height: of the letters, as a share of the image's rows
    """
    size = max(round(height * rows), 6)
    ink = _ink(text, size)
    if ink.shape[1] > WIDEST * columns:
        size = max(int(size * WIDEST * columns / ink.shape[1]), 4)
        ink = _ink(text, size)
    return ink[:rows, :columns]


def scrambled(mask: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """As much ink in the same box as square tiles of a text in random order: nobody can read it."""
    tile = max(mask.shape[0] // _TILE_ROWS, 1)
    rows, columns = (-(-side // tile) * tile for side in mask.shape)
    padded = np.zeros((rows, columns), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    tiles = padded.reshape(rows // tile, tile, columns // tile, tile).swapaxes(1, 2)
    shape = tiles.shape
    order = np.random.default_rng(seed).permutation(shape[0] * shape[1])
    mixed = tiles.reshape(-1, tile, tile)[order].reshape(shape).swapaxes(1, 2)
    cut: NDArray[np.bool_] = mixed.reshape(rows, columns)[: mask.shape[0], : mask.shape[1]].copy()
    return _with_ink(cut, int(mask.sum()), seed)


def burn(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], place: str, is_visible: bool
) -> NDArray[np.uint8]:
    """Slices [N, rows, columns, 3] with the ink of `mask` at `place` of every one of them."""
    burnt = pixels.copy()
    top, left = _corner(mask.shape, (pixels.shape[1], pixels.shape[2]), place)
    box = burnt[:, top : top + mask.shape[0], left : left + mask.shape[1]]
    if is_visible:
        box[:, mask] = WHITE
    else:
        covered = box[:, mask]
        darker = covered > WHITE - FAINT_LEVELS
        box[:, mask] = np.where(darker, covered - FAINT_LEVELS, covered + FAINT_LEVELS)
    return burnt


def _ink(text: str, size: int) -> NDArray[np.bool_]:
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    canvas = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4))
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), text, font=font, fill=WHITE)
    ink = np.asarray(canvas) > WHITE // 2
    lines, places = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if not len(lines):
        raise ValueError("a text without ink")
    cut: NDArray[np.bool_] = ink[lines[0] : lines[-1] + 1, places[0] : places[-1] + 1]
    return cut


def _with_ink(mask: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.bool_]:
    """The mask with exactly so many pixels of ink: what the box cut off is put back within it."""
    missing = count - int(mask.sum())
    if missing > 0:
        free = np.flatnonzero(~mask)
        chosen = np.random.default_rng(seed).choice(free, missing, replace=False)
        mask.reshape(-1)[chosen] = True
    return mask


def _corner(box: tuple[int, ...], image: tuple[int, int], place: str) -> tuple[int, int]:
    """Row and column of the box's top left pixel."""
    margins = [round(MARGIN * side) for side in image]
    far = [max(image[axis] - box[axis] - margins[axis], 0) for axis in (0, 1)]
    near = [min(margin, edge) for margin, edge in zip(margins, far, strict=True)]
    if place == "middle":
        return (image[0] - box[0]) // 2, (image[1] - box[1]) // 2
    vertical, horizontal = place.split()
    return (far if vertical == "bottom" else near)[0], (far if horizontal == "right" else near)[1]
