"""Pulling a study from an archive: C-GET, then C-MOVE, then WADO-RS, each for what the last left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edge_medgemma.runtime.clinic.arrivals.count import images_in
from edge_medgemma.runtime.clinic.arrivals.intake import Intake
from edge_medgemma.runtime.clinic.arrivals.query import (
    FIND_OFFER,
    Archive,
    FoundSeries,
    FoundStudy,
    StudyQuestion,
)
from edge_medgemma.runtime.clinic.arrivals.retrieval import (
    OnImage,
    Retrieved,
    getting,
    move_series,
    sop_classes_of,
)
from edge_medgemma.runtime.clinic.arrivals.web_retrieval import fetch_series
from edge_medgemma.runtime.clinic.association import associated, called
from edge_medgemma.runtime.clinic.settings import ClinicSettings, Peer
from edge_medgemma.runtime.clinic.state_folder import StateFolder
from edge_medgemma.runtime.errors import PeerError

PULL = "pull"
"""Sender of what came by C-GET and WADO-RS; a C-MOVE comes from the archive's own AE title."""


class Way(StrEnum):
    """How images are retrieved."""

    GET = "get"
    MOVE = "move"
    WEB = "web"


@dataclass(frozen=True, slots=True)
class Match:
    """A study that an archive has, with its series that hold images."""

    study: FoundStudy
    series: tuple[FoundSeries, ...]

    @property
    def images(self) -> int | None:
        """None where the archive does not count them."""
        return images_in(self.series)


@dataclass(frozen=True, slots=True)
class Pulled:
    """How the pull of one study ended."""

    images: int
    """That came, also those that were here already."""
    expected: int | None
    is_whole: bool
    """The archive said of every series that all was sent, and as many are here."""
    problems: tuple[str, ...]
    """In the order of the ways that were tried, one line each."""


def find_matches(
    state: StateFolder, settings: ClinicSettings, peer: Peer, question: StudyQuestion
) -> tuple[Match, ...]:
    """Studies with images that match, the latest first.

    Raises:
        PeerError: the archive is away, refuses, fails or has too many.
        ScanError: the question is none.
    """
    question.check()
    with associated(state, settings, peer, [FIND_OFFER]) as association:
        archive = Archive(peer, association)
        matches = []
        for study in archive.studies(question):
            series = tuple(one for one in archive.series(study.study_uid) if one.has_images)
            if series:
                matches.append(Match(study, series))
    return tuple(matches)


def pull_study(
    intake: Intake,
    peer: Peer,
    match: Match,
    ways: Sequence[Way] = tuple(Way),
    on_progress: Callable[[int], None] = lambda count: None,
) -> Pulled:
    """Retrieve the images of a study into the spool.

    What does not come one way is asked for the next way. `on_progress` counts images.

    Raises:
        ResourceError: the disk is full; what had come is kept.
    """
    left = {one.series_uid: one for one in match.series}
    best: dict[str, int] = {}
    problems: list[str] = []
    for way in ways:
        if not left:
            break
        problems += _Attempt(intake, peer, match, best, on_progress).run(way, left)
    images = sum(best.values())
    here = intake.settle(intake.state.study_key(match.study.study_uid))
    if here < images:
        problems.append(
            f"{called(peer)} says that it sent {images} images, and {here} are here: correct this "
            "box's address in its table"
        )
    _tell(intake, match, min(here, images), is_whole=not left and here >= images)
    return Pulled(
        images=min(here, images),
        expected=match.images,
        is_whole=not left and here >= images,
        problems=tuple(dict.fromkeys(problems)),
    )


@dataclass(slots=True)
class _Attempt:
    """One way of retrieval over the series that are left."""

    intake: Intake
    peer: Peer
    match: Match
    best: dict[str, int]
    """Series -> images that came the best way so far."""
    on_progress: Callable[[int], None]

    def run(self, way: Way, left: dict[str, FoundSeries]) -> list[str]:
        """Take what came whole out of `left`; the problems."""
        try:
            if way is Way.GET:
                modalities = tuple(dict.fromkeys(one.modality for one in left.values()))
                classes = sop_classes_of(self.match.study.sop_classes, modalities)
                with getting(self.intake, self.peer, classes) as getter:
                    return self._each(left, getter.series)
            retrieve = move_series if way is Way.MOVE else fetch_series
            return self._each(left, lambda *words: retrieve(self.intake, self.peer, *words))
        except PeerError as error:
            return [str(error)]

    def _each(
        self,
        left: dict[str, FoundSeries],
        retrieve: Callable[[str, FoundSeries, OnImage], Retrieved],
    ) -> list[str]:
        problems = []
        for series in tuple(left.values()):
            count = self._counter(series)
            retrieved = retrieve(self.match.study.study_uid, series, count)
            count(retrieved.images)
            if retrieved.is_whole(series):
                del left[series.series_uid]
            else:
                problems.append(retrieved.problem or "fewer images came than the archive has")
        return problems

    def _counter(self, series: FoundSeries) -> OnImage:
        def count(images: int) -> None:
            known = self.best.get(series.series_uid, 0)
            self.best[series.series_uid] = max(known, images)
            self.on_progress(sum(self.best.values()))

        return count


def _tell(intake: Intake, match: Match, images: int, *, is_whole: bool) -> None:
    """Put into the worklist how many images there are, and that some are missing."""
    key = intake.state.study_key(match.study.study_uid)
    intake.expect(key, match.images)
    if not is_whole and match.images is None and images:
        intake.doubt(key)
