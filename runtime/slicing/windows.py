"""Values turned into the pixels the model was trained on: one named preset per kind of scan."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.errors import ScanError
from edge_medgemma.runtime.slicing.displayed import display_problems
from edge_medgemma.runtime.slicing.volume import Modality, Problem, Series, SliceStack, Volume

CT_WINDOWS_HU = ((-1024.0, 1024.0), (-135.0, 215.0), (0.0, 80.0))
"""Lowest and highest HU shown in red (all), green (soft tissue) and blue (brain): Google's notebook
high_dimensional_ct_hugging_face.ipynb."""

PRESETS = {
    Modality.CT: "medgemma-ct",
    Modality.MR: "medgemma-mr",
    Modality.CR: "medgemma-xray",
    Modality.DX: "medgemma-xray",
}
"""The preset of each modality; its name goes into the report."""


def render_stack(volume: Volume, preset: str | None = None) -> SliceStack:
    """Make the model's pixels [N, rows, columns, 3] uint8 of a volume.

    `preset` is one of `medgemma-ct`, `medgemma-mr`, `medgemma-xray`; by default the modality's.
    MR runs from the lowest to the highest value of the volume, as in Google's server. A volume of
    one value gives black slices and the problem `constant_intensity`.

    Raises:
        ScanError: an unknown preset, or a CT that is not in Hounsfield units, whose windows would
            show the wrong tissue.
    """
    preset = preset or PRESETS[volume.series.modality]
    if preset not in PRESETS.values():
        known = ", ".join(sorted(set(PRESETS.values())))
        raise ScanError(f"unknown intensity preset '{preset}'; choose one of {known}")
    names = {problem.name for problem in volume.problems}
    if preset == "medgemma-ct" and "not_hounsfield" in names:
        raise ScanError(
            "this CT is not in Hounsfield units, so its windows would show the wrong tissue; "
            "export it from the scanner or archive as original CT images"
        )
    problems = volume.problems
    low, high = volume.value_range or (float(volume.array.min()), float(volume.array.max()))
    if low == high:
        problems += (Problem("constant_intensity", f"every voxel has the value {low:g}"),)
    pixels = _render(volume.array, preset, low, high)
    if low < high:
        problems += tuple(display_problems(pixels, _shown(volume)))
    return SliceStack(
        pixels=pixels,
        slice_indices=volume.slice_indices,
        positions_mm=volume.series.positions_mm[volume.slice_indices],
        series=volume.series,
        preset=preset,
        problems=problems,
    )


def _shown(volume: Volume) -> Series:
    """The series, with the views of the images that were read."""
    series = volume.series
    return replace(
        series, views=tuple(series.views[i] for i in volume.slice_indices if series.views)
    )


def _render(array: NDArray[np.float32], preset: str, low: float, high: float) -> NDArray[np.uint8]:
    """[N, rows, columns] to [N, rows, columns, 3], slice by slice to keep the peak low."""
    pixels = np.zeros((*array.shape, 3), dtype=np.uint8)
    if low == high and preset == "medgemma-mr":
        return pixels
    windows = {
        "medgemma-ct": CT_WINDOWS_HU,
        "medgemma-mr": ((low, high),) * 3,
        "medgemma-xray": ((0.0, 1.0),) * 3,
    }[preset]
    for slice_values, slice_pixels in zip(array, pixels, strict=True):
        for channel, (lowest, highest) in enumerate(windows):
            slice_pixels[..., channel] = window_to_uint8(slice_values, lowest, highest)
    return pixels


def window_to_uint8(
    values: NDArray[np.float32], lowest: float, highest: float
) -> NDArray[np.uint8]:
    """Clip to [lowest, highest], scale to 0..255 in float32, round half to even: Google's order."""
    scaled = np.clip(values, lowest, highest).astype(np.float32)
    scaled -= np.float32(lowest)
    scaled /= np.float32(highest - lowest)
    scaled *= np.float32(255.0)
    return np.round(scaled).astype(np.uint8)
