"""Grey scales that the viewer offers: those the model saw, and those a reader wants beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.runtime.reporting.translation import mark
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Series
from edge_medgemma.runtime.slicing.windows import CT_WINDOWS_HU, window_to_uint8

BONE_HU = -450.0, 1050.0
"""Level 300, width 1500."""

LUNG_HU = -1350.0, 150.0
"""Level −600, width 1500."""

_WIDE_HU, _SOFT_TISSUE_HU, _BRAIN_HU = CT_WINDOWS_HU


@dataclass(frozen=True, slots=True)
class ViewerWindow:
    """One way to show a slice."""

    name: str
    """Of a closed list; part of addresses and paths."""
    label: str
    """In English, to be translated."""
    ranges: tuple[tuple[float, float], ...]
    """Lowest and highest value shown: one for grey, three for red, green and blue. Of a series
    whose range is measured, as shares of it."""
    is_inverted: bool = False
    of_range: bool = False
    """Whether `ranges` are shares of the range of all values."""

    def render(
        self, values: NDArray[np.float32], value_range: tuple[float, float]
    ) -> NDArray[np.uint8]:
        """[rows, columns] as [rows, columns] or [rows, columns, 3], black to white."""
        channels = [window_to_uint8(values, *self._limits(one, value_range)) for one in self.ranges]
        pixels = channels[0] if len(channels) == 1 else np.stack(channels, axis=-1)
        return 255 - pixels if self.is_inverted else pixels

    def _limits(
        self, limits: tuple[float, float], value_range: tuple[float, float]
    ) -> tuple[float, float]:
        if self.of_range:
            low, high = value_range
            limits = low + limits[0] * (high - low), low + limits[1] * (high - low)
        return limits if limits[0] < limits[1] else (limits[0], limits[0] + 1.0)


_WIDE = ViewerWindow("wide", mark("Everything (−1024 to 1024 HU)"), (_WIDE_HU,))
_SOFT_TISSUE = ViewerWindow("soft_tissue", mark("Soft tissue (−135 to 215 HU)"), (_SOFT_TISSUE_HU,))
_BRAIN = ViewerWindow("brain", mark("Brain (0 to 80 HU)"), (_BRAIN_HU,))
_BONE = ViewerWindow("bone", mark("Bone (−450 to 1050 HU)"), (BONE_HU,))
_LUNG = ViewerWindow("lung", mark("Lung (−1350 to 150 HU)"), (LUNG_HU,))
_MODEL = ViewerWindow(
    "model", mark("As the model saw it (three windows as colours)"), CT_WINDOWS_HU
)

_RANGE = ViewerWindow(
    "range", mark("Full range, as the model saw it"), ((0.0, 1.0),), of_range=True
)
_BRIGHT = ViewerWindow("bright", mark("Brighter"), ((0.0, 0.5),), of_range=True)
_DARK = ViewerWindow("dark", mark("Darker"), ((0.2, 1.0),), of_range=True)
_UNTRUSTED = ViewerWindow(
    "range", mark("Full range (grey values are not trusted)"), ((0.0, 1.0),), of_range=True
)

_STORED = ViewerWindow("stored", mark("As stored for reading"), ((0.0, 1.0),))
_INVERTED = ViewerWindow("inverted", mark("Black and white exchanged"), ((0.0, 1.0),), True)
_CONTRAST = ViewerWindow("contrast", mark("More contrast"), ((0.2, 0.8),))

_CT_FIRST = {BodyPart.HEAD: _BRAIN, BodyPart.CHEST: _LUNG}


def viewer_windows(series: Series) -> Sequence[ViewerWindow]:
    """Windows for a series, the one that shows its body part best first."""
    if series.modality is Modality.MR:
        return _RANGE, _BRIGHT, _DARK
    if series.modality in (Modality.CR, Modality.DX):
        return _STORED, _CONTRAST, _INVERTED
    if any(problem.name == "not_hounsfield" for problem in series.problems):
        return _UNTRUSTED, _BRIGHT, _DARK
    first = _CT_FIRST.get(series.body_part, _SOFT_TISSUE)
    rest = (_BRAIN, _SOFT_TISSUE, _BONE, _LUNG, _WIDE, _MODEL)
    return first, *(one for one in rest if one is not first)
