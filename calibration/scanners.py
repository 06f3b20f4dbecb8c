"""Scanner of a series, without a word of the file: a listed manufacturer and a hash of the model."""

import hashlib

import pydicom
from pydicom.errors import InvalidDicomError

from edge_medgemma.runtime.slicing.volume import Series

MANUFACTURERS = (
    "agfa", "canon", "carestream", "fujifilm", "ge", "hitachi", "konica", "neusoft", "philips",
    "shimadzu", "siemens", "toshiba", "united imaging",
)  # fmt: skip
"""Free text of a file stays on the machine; a name of this list says nothing of a patient."""

MODEL_DIGITS = 8


def scanner_of(series: Series) -> str:
    """`siemens 3f9a12bc`, `other 3f9a12bc`, or nothing where the file does not say."""
    try:
        header = pydicom.dcmread(
            series.sources[0].path,
            stop_before_pixels=True,
            specific_tags=["Manufacturer", "ManufacturerModelName"],
        )
        stated = str(header.get("Manufacturer", "") or "").lower()
        model = str(header.get("ManufacturerModelName", "") or "").strip().lower()
    except (OSError, InvalidDicomError, ValueError, TypeError):
        return ""  # NIfTI, or a header that no one else needs
    if not stated and not model:
        return ""
    words = f" {stated} "
    name = next((one for one in MANUFACTURERS if f" {one} " in words), "other")
    return f"{name} {hashlib.sha256(model.encode()).hexdigest()[:MODEL_DIGITS]}"
