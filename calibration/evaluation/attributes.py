"""What subgroups are made of: a few attributes of a scan, in bands that name nobody."""

import math
from collections.abc import Mapping

import pydicom
from pydicom.errors import InvalidDicomError

from edge_medgemma.calibration.scanners import MANUFACTURERS
from edge_medgemma.runtime.slicing.volume import Modality, Series

ATTRIBUTES = ("manufacturer", "thickness", "kernel", "sex", "age", "view", "site")
"""Names that `--by` takes; `site` only labels can say."""

NOT_STATED = "not stated"

_TAGS = ["Manufacturer", "SliceThickness", "PatientSex", "PatientAge"]

_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female", "o": "other"}

_AGES = ((0, "under 18"), (18, "18 to 39"), (40, "40 to 59"), (60, "60 to 79"), (80, "80 and over"))
"""Youngest of each band, in years, and its name."""

_THICKNESSES = (
    (0.0, "up to 1.5 mm"), (1.5, "over 1.5 to 3 mm"), (3.0, "over 3 to 5 mm"), (5.0, "over 5 mm"),
)  # fmt: skip

_AGE_UNITS = {"d": 365.25, "w": 52.18, "m": 12.0, "y": 1.0}
"""Of a DICOM age string, in a year. PS3.5 6.2"""


def scan_attributes(series: Series) -> dict[str, str]:
    """What the header of a scan says, in bands; what it does not say is left out."""
    header = _header(series)
    thickness = header.get("SliceThickness", "") or _finite(series.spacing_mm[0])
    found = {
        "manufacturer": header.get("Manufacturer", ""),
        "thickness": thickness if series.modality in (Modality.CT, Modality.MR) else "",
        "kernel": "" if series.modality is not Modality.CT else _kernel(series),
        "sex": header.get("PatientSex", ""),
        "age": header.get("PatientAge", ""),
        "view": series.views[0].value if series.views else "",
    }
    banded = {name: band(name, value) for name, value in found.items()}
    return {name: value for name, value in banded.items() if value != NOT_STATED}


def band(attribute: str, value: str) -> str:
    """The subgroup of a value as a header or a table of labels writes it."""
    text = value.strip().lower()
    if not text:
        return NOT_STATED
    if attribute == "sex":
        return _SEXES.get(text, NOT_STATED)
    if attribute == "age":
        return _age_band(text)
    if attribute == "thickness":
        return _thickness_band(text)
    if attribute == "manufacturer":
        return next((one for one in MANUFACTURERS if f" {one} " in f" {text} "), "other")
    return value.strip()


def band_order(attribute: str, value: str) -> tuple[bool, int, str]:
    """Where a subgroup stands among those of its attribute."""
    bands = {"age": _AGES, "thickness": _THICKNESSES}.get(attribute, ())
    names = [name for _, name in bands]
    return value == NOT_STATED, names.index(value) if value in names else 0, value


def merged(scan: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, str]:
    """Attributes of the scan; those that the labels state as well are the labels'."""
    stated = {name: band(name, value) for name, value in labels.items() if name in ATTRIBUTES}
    return {**scan, **{name: value for name, value in stated.items() if value != NOT_STATED}}


def _header(series: Series) -> dict[str, str]:
    try:
        header = pydicom.dcmread(
            series.sources[0].path, stop_before_pixels=True, specific_tags=_TAGS
        )
        return {name: str(header.get(name, "") or "") for name in _TAGS}
    except (OSError, InvalidDicomError, ValueError, TypeError):
        return {}  # NIfTI, or a header that no one else needs


def _finite(value: float) -> str:
    return str(value) if math.isfinite(value) and value > 0 else ""


def _kernel(series: Series) -> str:
    return "sharp" if series.is_sharp_kernel else "other"


def _age_band(text: str) -> str:
    unit = _AGE_UNITS.get(text[-1], 1.0)
    years = _number(text.rstrip("dwmy")) / unit
    return next((name for least, name in reversed(_AGES) if years >= least), NOT_STATED)


def _thickness_band(text: str) -> str:
    millimetres = _number(text.removesuffix("mm"))
    return next((name for more, name in reversed(_THICKNESSES) if millimetres > more), NOT_STATED)


def _number(text: str) -> float:
    """NaN, which is in no band, where it is none."""
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return math.nan
