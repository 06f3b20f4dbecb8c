"""Plain words for states and senders, and what a person can do; English, to be translated."""

from edge_medgemma.runtime.clinic.worklist.records import Doubt, FailureReason, StudyRow, StudyState
from edge_medgemma.runtime.reporting.translation import mark
from edge_medgemma.runtime.reporting.words import INCOMPLETE_DOUBTS

STATE_WORDS = {
    StudyState.ARRIVING: mark("Images are arriving"),
    StudyState.WAITING: mark("Waiting to be looked at"),
    StudyState.RUNNING: mark("Being looked at now"),
    StudyState.INCOMPLETE: mark("Looked at; may be incomplete"),
    StudyState.DONE: mark("The program has looked"),
    StudyState.DELIVERED: mark("Looked at; result sent"),
    StudyState.FAILED: mark("Could not be looked at"),
    StudyState.SUPERSEDED: mark("Replaced by another study"),
}

NO_FLAG_NOTE = mark("This is not a normal report.")
NO_RESULT_WORDS = mark("no result")
NO_RESULT_NOTE = mark("Random weights: nothing this engine says means anything.")
NOT_YET_WORDS = mark("no result yet")

REMEDIES = {
    Doubt.ABORTED: mark("Send the study again from the scanner or archive."),
    Doubt.FEWER_THAN_ARCHIVE: mark(
        "Send the study again, or wait until the archive has sent the rest."
    ),
    Doubt.GAP: mark("Send the whole series again."),
    Doubt.CONFLICTING_COPIES: mark("Check which one is right, and whose scan it is."),
    Doubt.STILL_ARRIVING: mark("Wait: the result is renewed when more comes."),
    Doubt.CLOCK_NOT_SET: mark("Set the clock; the setup page shows what it says now."),
}
"""What a person can do about a doubt of `reporting/words.DOUBTS`."""

FAILURE_WORDS = {
    FailureReason.CRASHED: mark("The program ended twice while it looked at this study."),
    FailureReason.OUT_OF_MEMORY: mark("This study needs more memory than this device has."),
    FailureReason.UNREADABLE: mark("None of its files is an image that can be read."),
    FailureReason.ENGINE: mark("The engine refused, or the device that it runs on failed."),
    FailureReason.DISK_FULL: mark("The disk is full: the result could not be kept."),
    FailureReason.INTERNAL: mark("The program failed while it looked at this study."),
}

SENDER_WORDS = {
    "upload": mark("added on this page"),
    "folder": mark("from a folder or stick"),
    "pull": mark("fetched from the archive"),
}
"""Senders that are no AE titles."""

BODY_PART_WORDS = {
    "head": mark("head"),
    "chest": mark("chest"),
    "abdomen": mark("abdomen"),
    "other": mark("other part of the body"),
}

MODALITY_WORDS = {"CT": mark("CT"), "MR": mark("MR"), "CR": mark("X-ray"), "DX": mark("X-ray")}

METHOD_WORDS = {
    "in person": mark("in person"),
    "telephone": mark("by telephone"),
    "message": mark("by message"),
    "page": mark("on this page"),
}
"""`Acknowledgement.method`."""


def may_be_incomplete(row: StudyRow) -> bool:
    """Whether images of the study are known or feared to be missing."""
    is_short = row.expected_instances is not None and row.instances < row.expected_instances
    return (
        row.state is StudyState.INCOMPLETE
        or is_short
        or bool(set(INCOMPLETE_DOUBTS) & set(row.doubts))
    )
