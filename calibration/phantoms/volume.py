"""A phantom as the slicing room would hand it on, without the way over files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma.calibration.phantoms.drawing import Phantom
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality, Series, SliceSource, Volume


def to_volume(phantom: Phantom, slice_indices: NDArray[np.int64]) -> Volume:
    """The chosen slices of a phantom as a decoded CT volume of the head.

    Args:
        phantom: drawn whole.
        slice_indices: [N], ascending, of the phantom's first axis.
    """
    affine = phantom.affine_lps_mm
    normal = affine[:3, 0] / phantom.spacing_mm[0]
    steps = np.arange(len(phantom.hounsfield)) * phantom.spacing_mm[0]
    series = Series(
        study_uid="",
        series_uid="",
        modality=Modality.CT,
        body_part=BodyPart.HEAD,
        shape=phantom.hounsfield.shape,
        affine_lps_mm=affine,
        positions_mm=affine[:3, 3] @ normal + steps,
        spacing_mm=phantom.spacing_mm,
        orientation="axial",
        sources=tuple(SliceSource(Path(), i, "") for i in range(len(phantom.hounsfield))),
        problems=(),
    )
    return Volume(series, slice_indices, phantom.hounsfield[slice_indices], ())
