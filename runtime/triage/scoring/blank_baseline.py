"""Blank baseline: log-odds of the same questions when every slice is blank.

Models answer yes to everything (https://github.com/Google-Health/medgemma/issues/18). The answers
depend on the engine, the questions and the number of slices, not on a patient, so they are cached.
"""

import numpy as np

from edge_medgemma.runtime.slicing.volume import Modality, Volume

AIR_HU = -1024.0
"""Lowest value of the CT windows of the MedGemma preset."""


def blank_volume(volume: Volume) -> Volume:
    """One blank slice in the geometry of `volume`: air for CT, 0 for all else."""
    series = volume.series
    value = AIR_HU if series.modality is Modality.CT else 0.0
    array = np.full((1, *volume.array.shape[1:]), value, np.float32)
    return Volume(series, volume.slice_indices[:1], array, ())
