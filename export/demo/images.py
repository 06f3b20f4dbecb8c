"""Phantoms as the network gets them, with what there is to learn from each slice."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS
from edge_medgemma.calibration.phantoms.drawing import Phantom
from edge_medgemma.export.demo.network import IMAGE_SIZE, PATCH_SIZE, vision_of_network
from edge_medgemma.runtime.generation.images import to_pixel_values
from edge_medgemma.runtime.slicing.windows import CT_WINDOWS_HU, window_to_uint8

CELLS = IMAGE_SIZE // PATCH_SIZE
CELL_COVERAGE = (0.12, 0.12, 0.03)
"""Share of a patch that a finding covers from which the patch counts as showing it."""


def pixel_values(hounsfield: NDArray[np.float32]) -> torch.Tensor:
    """[N, 3, size, size] float32 in -1..1 of [N, rows, columns] Hounsfield units, as on the device."""
    channels = [window_to_uint8(hounsfield, low, high) for low, high in CT_WINDOWS_HU]
    return torch.from_numpy(to_pixel_values(np.stack(channels, -1), vision_of_network()))


@dataclass(frozen=True, slots=True)
class SliceTargets:
    """Findings visible on N slices, findings in the order of FINDINGS."""

    slices: torch.Tensor
    """[N, findings]: 1 where the slice shows the finding."""
    patches: torch.Tensor
    """[N, findings, cells, cells]: 1 where the patch shows it."""
    shift_cm: torch.Tensor
    """[N]: shift of the midline towards the patient's left, which is the right of the image."""

    def chosen(self, indices: NDArray[np.int64]) -> "SliceTargets":
        """Those of some slices."""
        where = torch.from_numpy(indices)
        return SliceTargets(self.slices[where], self.patches[where], self.shift_cm[where])


def slice_targets(phantom: Phantom) -> SliceTargets:
    """The targets of every slice of a phantom."""
    count = len(phantom.hounsfield)
    shown = np.zeros((count, len(FINDINGS)), np.float32)
    patches = np.zeros((count, len(FINDINGS), CELLS, CELLS), np.float32)
    for i, code in enumerate(FINDINGS):
        if code not in phantom.findings:
            continue
        shown[list(phantom.finding_slices[code]), i] = 1
        mask = torch.from_numpy(phantom.finding_masks[code].astype(np.float32))
        share = torch.nn.functional.adaptive_avg_pool2d(mask, CELLS).numpy()
        patches[:, i] = share > CELL_COVERAGE[i]
    shift_cm = torch.from_numpy(phantom.midline_shift_mm / 10)
    return SliceTargets(torch.from_numpy(shown), torch.from_numpy(patches), shift_cm)
