"""What a radiograph's header says of its projection, and how it is hung for reading."""

import re

import pydicom.uid

from edge_medgemma.runtime.slicing.dicom.frames import Frame
from edge_medgemma.runtime.slicing.display import AS_STORED, Turn
from edge_medgemma.runtime.slicing.volume import View

KEYWORDS = ["ViewPosition", "ViewCodeSequence", "PatientOrientation", "PresentationIntentType"]

VIEW_POSITIONS = {
    "PA": View.PA, "AP": View.AP, "LL": View.LATERAL, "RL": View.LATERAL, "LAT": View.LATERAL,
    "LATERAL": View.LATERAL,
}  # fmt: skip
"""Defined terms of view position (0018,5101), PS3.3 C.8.1.2, and how they are misspelt."""

VIEW_CODES = {
    "R-10202": View.FRONTAL, "R-10206": View.AP, "R-10214": View.PA, "R-10236": View.LATERAL,
    "R-10228": View.LATERAL, "R-10232": View.LATERAL, "399348003": View.AP, "272460009": View.PA,
    "399067008": View.LATERAL, "399173006": View.LATERAL, "399198007": View.LATERAL,
}  # fmt: skip
"""SNOMED codes of PS3.16 CID 4010, old and new."""

VIEW_WORDS = {
    "PA": View.PA, "AP": View.AP, "LAT": View.LATERAL, "LATERAL": View.LATERAL, "LL": View.LATERAL,
    "LATL": View.LATERAL, "SEITLICH": View.LATERAL, "SEITL": View.LATERAL, "PERFIL": View.LATERAL, "PROFIL": View.LATERAL,
    "FRONTAL": View.FRONTAL, "FACE": View.FRONTAL, "FRENTE": View.FRONTAL,
}  # fmt: skip
"""Words of series description (0008,103E) in English, French, Spanish, Portuguese and German."""

_LETTERS = {"L": (0, 1), "R": (0, -1), "F": (1, 1), "H": (1, -1), "A": (2, 0), "P": (2, 0)}
"""Patient direction: which display axis it lies along (0 columns, 1 rows) and whether it counts up
there; towards front or back is a lateral's horizontal, either way round."""


def view_of(frame: Frame) -> View:
    """The projection; UNKNOWN where the header names none or several."""
    named = VIEW_POSITIONS.get(frame.term("ViewPosition"))
    if named is not None:
        return named
    codes = frame.dataset.get("ViewCodeSequence") or []
    for code in codes:
        if (view := VIEW_CODES.get(str(code.get("CodeValue") or ""))) is not None:
            return view
    words = set(re.findall(r"[A-Z]+", frame.term("SeriesDescription").replace(".", "")))
    found = {VIEW_WORDS[word] for word in words if word in VIEW_WORDS}
    if View.LATERAL in found:
        return View.LATERAL if len(found) == 1 else View.UNKNOWN
    return next((view for view in (View.PA, View.AP, View.FRONTAL) if view in found), View.UNKNOWN)


def is_for_processing(frame: Frame) -> bool:
    """Whether these are a detector's raw values, which nobody reads (PS3.3 C.8.11.1)."""
    sop_class = frame.dataset.get("SOPClassUID")
    return (
        frame.term("PresentationIntentType") == "FOR PROCESSING"
        or sop_class == pydicom.uid.DigitalXRayImageStorageForProcessing
    )


def hanging(frame: Frame) -> tuple[Turn, bool]:
    """The turn to head up and, for a frontal view, patient's left at the right edge.

    By patient orientation (0020,0020), PS3.3 C.7.6.1.1.1. Also whether the header gives it.
    """
    parts = frame.term("PatientOrientation").split("\\")
    axes = [_LETTERS[part[:1]] for part in parts if part[:1] in _LETTERS]
    if len(parts) != 2 or len(axes) != 2:
        return AS_STORED, False
    (columns, columns_up), (rows, rows_up) = axes
    if {columns, rows} in ({0, 1}, {2, 1}):
        is_transposed = columns == 1
        across, down = (rows_up, columns_up) if is_transposed else (columns_up, rows_up)
        turn = Turn(is_transposed, flips_rows=down < 0, flips_columns=across < 0)
        return turn, 0 in (columns, rows) or view_of(frame) is View.LATERAL
    return AS_STORED, False
