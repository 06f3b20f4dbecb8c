"""One image of all slices of some stacks, to see what the model sees."""

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edge_medgemma.runtime.slicing.volume import SliceStack

THUMBNAIL_PX = 192
COLUMNS = 8
HEADING_PX = 28
LABEL_COLOUR = (255, 220, 0)


def contact_sheet_png(stacks: Sequence[SliceStack]) -> bytes:
    """A PNG with one section per stack: a heading, then its slices in order, row by row.

    Each thumbnail is the stack's own pixels, shrunk with their true proportions, labelled with the
    slice's number in its series (from 1) and its position in mm.
    """
    sections = [_section(stack) for stack in stacks]
    height = sum(section.height for section in sections)
    sheet = Image.new("RGB", (COLUMNS * THUMBNAIL_PX, height))
    top = 0
    for section in sections:
        sheet.paste(section, (0, top))
        top += section.height
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _section(stack: SliceStack) -> Image.Image:
    rows = math.ceil(len(stack.pixels) / COLUMNS)
    section = Image.new("RGB", (COLUMNS * THUMBNAIL_PX, HEADING_PX + rows * THUMBNAIL_PX))
    draw = ImageDraw.Draw(section)
    draw.text((6, 6), _heading(stack), fill=(255, 255, 255), font=ImageFont.load_default(16))
    font = ImageFont.load_default(13)
    for slot, pixels in enumerate(stack.pixels):
        left = slot % COLUMNS * THUMBNAIL_PX
        top = HEADING_PX + slot // COLUMNS * THUMBNAIL_PX
        thumbnail = _thumbnail(pixels, stack.series.spacing_mm[1:])
        margin_x, margin_y = (THUMBNAIL_PX - side for side in thumbnail.size)
        section.paste(thumbnail, (left + margin_x // 2, top + margin_y // 2))
        label = f"{stack.slice_indices[slot] + 1}"
        if stack.series.orientation != "projection":
            label += f"  {stack.positions_mm[slot]:.1f} mm"
        draw.text(
            (left + 4, top + 3), label, LABEL_COLOUR, font, stroke_width=1, stroke_fill=(0, 0, 0)
        )
    return section


def _heading(stack: SliceStack) -> str:
    count, rows, columns = stack.series.shape
    return (
        f"{stack.series.modality} {stack.series.orientation}, {len(stack.pixels)} of {count} "
        f"slices of {rows} x {columns}, preset {stack.preset}"
    )


def _thumbnail(pixels: NDArray[np.uint8], spacing_mm: tuple[float, float]) -> Image.Image:
    height_mm, width_mm = (
        side * spacing for side, spacing in zip(pixels.shape, spacing_mm, strict=False)
    )
    scale = THUMBNAIL_PX / max(height_mm, width_mm)
    size = max(1, round(width_mm * scale)), max(1, round(height_mm * scale))
    return Image.fromarray(pixels).resize(size, Image.Resampling.BOX)
