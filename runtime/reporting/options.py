"""What a report is shown with besides the results themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo

from edge_medgemma.runtime.reporting.translation import ENGLISH


@dataclass(frozen=True, slots=True)
class StudyContext:
    """What is known of a study from elsewhere; shown, and kept in no document for programs."""

    accession_number: str = ""
    """Read by whoever asks for it; empty: not shown."""
    doubts: tuple[str, ...] = ()
    """Names of `words.DOUBTS`: why the study may not be what it seems."""
    earlier_flags: tuple[str, ...] = ()
    """Titles of findings that an earlier look flagged and this one does not."""
    short_key: str = ""
    """Stands for the study's number, so that sheets of two studies differ; empty: the number."""


NO_CONTEXT = StudyContext()


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """How a report is shown."""

    language: str = ENGLISH
    """One of `translation.languages()`."""
    studies: Mapping[str, StudyContext] = field(default_factory=dict)
    """Study instance UID to what is known of it from elsewhere."""
    time_zone: tzinfo | None = None
    """Of the times shown; None for the device's own."""

    def context(self, study_uid: str) -> StudyContext:
        """What is known of a study from elsewhere."""
        return self.studies.get(study_uid, NO_CONTEXT)


DEFAULT_OPTIONS = RenderOptions()
