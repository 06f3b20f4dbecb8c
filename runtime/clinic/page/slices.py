"""Slices for the viewer: JPEG files made on the server, square pixels, a few slices at a time."""

import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_medgemma.runtime.clinic.page.viewer_windows import ViewerWindow, viewer_windows
from edge_medgemma.runtime.slicing.decoding import decode_by_file
from edge_medgemma.runtime.slicing.pixels.codec_pool import CodecPool
from edge_medgemma.runtime.slicing.scan import find_series, measure_range
from edge_medgemma.runtime.slicing.volume import Modality, Series
from edge_medgemma.runtime.triage.key_images import side_marks

JPEG_QUALITY = 85
CHUNK_SLICES = 16
"""Slices that are decoded together: a reader who scrolls wants the next ones too."""

MAX_SLICE_PIXELS = 768
"""Longer side of a slice as it is shown."""

MAX_RADIOGRAPH_PIXELS = 1600


@dataclass(frozen=True, slots=True)
class Stack:
    """One series of a study as the viewer knows it."""

    tag: str
    """Hash of the series and its files: part of addresses and paths."""
    series: Series
    windows: tuple[ViewerWindow, ...]
    left_mark: str
    right_mark: str
    width: int
    height: int

    def window(self, name: str) -> ViewerWindow | None:
        """The window of that name."""
        return next((one for one in self.windows if one.name == name), None)

    def positions(self) -> tuple[float | None, ...]:
        """Position of each slice in mm; None where it is not known."""
        return tuple(
            float(value) if math.isfinite(value) and not self.series.views else None
            for value in self.series.positions_mm
        )


def list_stacks(folder: Path) -> tuple[Stack, ...]:
    """Every series of a study's folder, from headers alone.

    Raises:
        ScanError: nothing in it can be read.
    """
    return tuple(map(_stack, find_series(folder).series))


def value_range(stack: Stack) -> tuple[float, float]:
    """Lowest and highest value of all slices where a window needs them; else of none."""
    if not any(window.of_range for window in stack.windows):
        return 0.0, 1.0
    measured, _ = measure_range(stack.series)
    return measured or (0.0, 1.0)


def render_chunk(
    stack: Stack,
    window: ViewerWindow,
    index: int,
    limits: tuple[float, float],
    pool: CodecPool | None = None,
) -> Iterator[tuple[int, bytes]]:
    """JPEGs of the chunk that holds a slice: (0-based index, file); undecodable slices are left out.

    Args:
        stack: of `list_stacks`
        window: one of its windows
        index: 0-based slice that is wanted
        limits: `value_range` of the stack
        pool: kept between calls, since a codec process takes seconds to start
    """
    count = stack.series.shape[0]
    start = index // CHUNK_SLICES * CHUNK_SLICES
    indices = np.arange(start, min(count, start + CHUNK_SLICES), dtype=np.int64)
    for part in decode_by_file(stack.series, indices, {}, None, pool):
        for slot, values in zip(part.slots, part.values, strict=True):
            pixels = window.render(values, limits)
            yield int(indices[slot]), _jpeg(pixels, (stack.width, stack.height))


def _stack(series: Series) -> Stack:
    digest = hashlib.sha256(series.series_uid.encode())
    for source in series.sources:
        digest.update(f"\0{source.path.name}\0{source.frame}".encode())
    left, right = side_marks(series)
    width, height = _displayed_size(series)
    return Stack(
        digest.hexdigest()[:20], series, tuple(viewer_windows(series)), left, right, width, height
    )


def _displayed_size(series: Series) -> tuple[int, int]:
    """Width and height in square pixels."""
    _, rows, columns = series.shape
    height_mm, width_mm = rows * series.spacing_mm[1], columns * series.spacing_mm[2]
    if not (0 < height_mm < math.inf and 0 < width_mm < math.inf):
        height_mm, width_mm = float(rows), float(columns)
    is_slice = series.modality in (Modality.CT, Modality.MR)
    most = MAX_SLICE_PIXELS if is_slice else MAX_RADIOGRAPH_PIXELS
    scale = min(most, max(rows, columns)) / max(height_mm, width_mm)
    return max(1, round(width_mm * scale)), max(1, round(height_mm * scale))


def _jpeg(pixels: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    picture = Image.fromarray(pixels)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()
