"""Asking the archives how many images a study has."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_medgemma.runtime.clinic.arrivals.query import FIND_OFFER, Archive, FoundSeries
from edge_medgemma.runtime.clinic.association import associated, called
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Peer
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import EdgeMedgemmaError

ANSWER_TIMEOUT_S = 15.0
"""An archive that takes longer to count is asked again later."""


@dataclass(frozen=True, slots=True)
class ArchiveCount:
    """What one archive says of one study."""

    peer: str
    """Its name in the settings."""
    images: int | None
    """Objects in series with images: no reports, key objects and presentation states, nor what
    secondary captures and documents are sent as. None where it did not say."""
    problem: str = ""
    """Why it did not, in one line without anything of the study."""


def archive_counts(
    state: StateFolder, settings: ClinicSettings, study_uid: str
) -> tuple[ArchiveCount, ...]:
    """Answers of all peers with `query`, one after the other; never raises.

    A peer that is away costs up to 5 s, one that falls silent 15 s: not for a thread that receives.
    """
    return tuple(_count(state, settings, peer, study_uid) for peer in settings.peers if peer.query)


def expected_images(counts: Sequence[ArchiveCount]) -> int | None:
    """The most that any archive has; None where none of them knows the study.

    An archive with nothing of it has not received it yet, or never will: that says nothing.
    """
    return max((count.images for count in counts if count.images), default=None)


def images_in(series: Sequence[FoundSeries]) -> int | None:
    """Objects in the series with images; None where the archive does not count one of them."""
    numbers = [one.instances for one in series if one.has_images]
    return None if None in numbers else sum(number for number in numbers if number is not None)


def _count(
    state: StateFolder, settings: ClinicSettings, peer: Peer, study_uid: str
) -> ArchiveCount:
    try:
        with associated(
            state, settings, peer, [FIND_OFFER], answer_timeout_s=ANSWER_TIMEOUT_S
        ) as association:
            images = images_in(Archive(peer, association).series(study_uid))
    except EdgeMedgemmaError as error:
        return ArchiveCount(peer.name, None, str(error))
    if images is None:
        return ArchiveCount(
            peer.name, None, f"{called(peer)} does not count the images of a series"
        )
    return ArchiveCount(peer.name, images)
