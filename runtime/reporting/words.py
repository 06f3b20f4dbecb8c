"""What reports and pages say in plain words, in English; `Translation.text` gives another language."""

from edge_medgemma.runtime.reporting.labels import sentence
from edge_medgemma.runtime.reporting.translation import mark
from edge_medgemma.runtime.triage.report import FindingStatus
from edge_medgemma.runtime.triage.urgency import NO_FLAG_TEXT, Urgency

HEADLINES = {
    Urgency.CRITICAL: mark("Critical: look now"),
    Urgency.URGENT: mark("Urgent: look within hours"),
    Urgency.NOT_ASSESSABLE: mark("Not assessable: a human must look"),
    Urgency.ROUTINE: sentence(NO_FLAG_TEXT).removesuffix("."),
}
"""Times follow the ACR Actionable Reporting Work Group: category 1 minutes, category 2 hours."""

ROUTINE_FLAGGED_HEADLINE = mark("Routine: a finding without urgency was flagged")

URGENCY_WORDS = {
    Urgency.CRITICAL: mark("critical"),
    Urgency.URGENT: mark("urgent"),
    Urgency.NOT_ASSESSABLE: mark("not assessable"),
    Urgency.ROUTINE: mark("routine"),
}

NO_FLAG_WORDS = mark("no flag raised")

ACTIONS = {
    Urgency.CRITICAL: mark(
        "Show this scan to a doctor now. The program can be wrong: the doctor must look at the pictures."
    ),
    Urgency.URGENT: mark(
        "Show this scan to a doctor within hours. The program can be wrong: the doctor must look at "
        "the pictures."
    ),
    Urgency.NOT_ASSESSABLE: mark(
        "A doctor must look at this scan, as if the program had not been run."
    ),
    Urgency.ROUTINE: mark(
        "Read this scan in its turn. The program can miss findings: no flag does not mean that the "
        "scan is normal."
    ),
}
"""What to do next, by the urgency of the study."""

NO_RESULT_ACTION = mark("Read the scan as if this page did not exist.")

STATUS_WORDS = {
    FindingStatus.FLAGGED: mark("possible"),
    FindingStatus.NOT_FLAGGED: mark("no flag"),
    FindingStatus.NOT_ASSESSED: mark("not assessed"),
}

INCOMPLETE = mark("The study may be incomplete: images may be missing.")
UNREVIEWED = mark("Translation not reviewed by a clinician")
EARLIER_FLAG = mark("An earlier look flagged: %(findings)s")

DOUBTS = {
    "aborted": mark("The transfer of the images broke off."),
    "fewer_than_archive": mark("The archive has more images of this study than arrived here."),
    "gap": mark("Slices are missing in the middle."),
    "conflicting_copies": mark("One image came twice with different content."),
    "still_arriving": mark("Images are still arriving."),
    "clock_not_set": mark("The clock of this device was not set: its times are wrong."),
}
"""Why a study may not be what it seems, by the name of the doubt."""

INCOMPLETE_DOUBTS = ("aborted", "fewer_than_archive", "gap", "still_arriving")
"""Doubts under which images may be missing."""

PROBLEMS = {
    "anisotropic_pixels": mark("pixels are not square"),
    "body_part_not_stated": mark("the scan does not say which body part it shows"),
    "device_failed": mark("the graphics processor failed, and the scan was read again"),
    "display_window_replaced": mark("brightness and contrast of the picture were chosen anew"),
    "domain_not_measured": mark(
        "it was not measured whether the scan is like those of the calibration"
    ),
    "duplicate_slices": mark("several slices lie at the same place"),
    "flag_not_confirmed": mark("a second look did not confirm a flag; the flag stands"),
    "frame_of_reference_varies": mark("parts of the series may not fit together"),
    "frames_placed_by_spacing": mark("the places of the slices were worked out from their spacing"),
    "gantry_tilt": mark("the scanner was tilted"),
    "missing_slices": mark("slices are missing"),
    "mixed_series": mark("the series holds several stacks of slices"),
    "modality_guessed": mark("the kind of scan was guessed"),
    "no_frame_of_reference": mark("places cannot be compared with other series"),
    "no_pixel_spacing": mark("the size of a pixel is not known"),
    "no_positions": mark("the places of the slices are not known"),
    "non_finite_values": mark("some values are not numbers"),
    "non_uniform_spacing": mark("the slices are unevenly spaced"),
    "outlying_pixels": mark("a few pixels are far brighter or darker than all others"),
    "padding_in_tissue": mark("the file marks values of tissue as empty"),
    "positions_from_slice_location": mark("the places of the slices were read from another entry"),
    "refinement_failed": mark("no further slices could be looked at"),
    "rescale_varies": mark("the grey scale differs between slices"),
    "series_split": mark("the series was split into stacks"),
    "series_uid_per_slice": mark("single slices were joined to one series"),
    "sheared_stack": mark("the stack of slices leans"),
    "sides_not_stated": mark("left and right are not stated"),
    "thresholds_not_used": mark("fitted thresholds were not used"),
    "time_series": mark("only the first point in time was read"),
    "undecodable_slices": mark("some slices could not be read"),
}
"""What was noticed, by the name of the problem; those of `urgency.py` have their words there."""

WINDOWS = (mark("as stored for viewing"), mark("full range"))
"""Grey scales of key images that are words; the others are figures."""

REASONS_WITH_FIGURES = (
    mark("flagged when %(before)s slices were shown, not when %(now)s were"),
    mark("flagged at an earlier look at %(before)s slices, not at the latest at %(now)s"),
)
"""Why a flag stands that a later look did not confirm."""

REASONS = (mark("not asked at the latest look"),)
"""Further reasons for which a finding was not assessed."""
