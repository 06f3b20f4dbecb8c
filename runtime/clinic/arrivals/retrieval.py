"""Getting the images of a series from an archive by DICOM: C-GET here, C-MOVE to the node."""

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_medgemma.runtime.clinic.addresses import LOOPBACK
from edge_medgemma.runtime.clinic.arrivals.intake import Intake
from edge_medgemma.runtime.clinic.arrivals.query import LITTLE_ENDIAN, FoundSeries
from edge_medgemma.runtime.clinic.arrivals.receiving import ReceivedFile, receive_to
from edge_medgemma.runtime.clinic.arrivals.space import Space
from edge_medgemma.runtime.clinic.association import Offer, associated, called
from edge_medgemma.runtime.clinic.settings import Peer
from edge_medgemma.runtime.errors import PeerError, ResourceError, ScanError
from edge_medgemma.runtime.slicing.silence import silenced

_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
"""Study Root Query/Retrieve Information Model - GET and MOVE (PS3.4 C.6.2)."""

ANSWER_TIMEOUT_S = 120.0
"""An archive may fetch a study from tape before it sends the first image."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CLASSES = {
    "CT": ("2", "2.1", "2.2"),
    "MR": ("4", "4.1", "4.3", "4.4"),
    "CR": ("1", "1.1"),
    "DX": ("1.1", "1.1.1", "1"),
    "RG": ("1", "1.1"),
    "MG": ("1.2", "1.2.1", "13.1.3"),
    "US": ("6.1", "3.1"),
    "XA": ("12.1", "12.1.1", "13.1.1"),
    "RF": ("12.2", "12.2.1", "12.1"),
    "NM": ("20",),
    "PT": ("128", "130", "128.1"),
}
"""Modality -> storage SOP classes (PS3.4 B.5) that its images have, for archives that do not say."""

_OTHERS = tuple(dict.fromkeys(one for classes in _CLASSES.values() for one in classes))

_MOST_CONTEXTS = 127
"""PS3.8 7.1.1.13: odd numbers up to 255, one of them for C-GET itself."""

_COMPRESSED = tuple(
    f"1.2.840.10008.1.2.{one}"
    for one in ("4.90", "4.70", "5", "4.80", "4.50", "4.51", "4.91", "4.81", "4.57", "4.201",
                "4.202", "4.203", "1.99", "2")
)  # fmt: skip
"""JPEG 2000, JPEG lossless, RLE, JPEG-LS, JPEG, HTJ2K, deflated, big endian: the likelier first."""

_SUCCESS, _OUT_OF_RESOURCES, _NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000
_PENDING = (0xFF00, 0xFF01)

OnImage = Callable[[int], None]
"""Called with the number of images of the series that have come."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """How the retrieval of one series ended."""

    images: int
    """That came, also those that were here already."""
    problem: str = ""
    """Why not all came, in one line; empty where the archive says that all did."""

    def is_whole(self, series: FoundSeries) -> bool:
        """Whether the archive sent all, and as many as it has."""
        return not self.problem and self.images >= (series.instances or 0)


def sop_classes_of(told: Sequence[str], modalities: Sequence[str]) -> tuple[str, ...]:
    """Storage classes to ask for: what the archive told, else those that its modalities make."""
    images = [one for one in told if one.startswith(_STORAGE)]
    if images:
        return tuple(images)
    numbers = [number for one in modalities for number in _CLASSES.get(one, _OTHERS)]
    return tuple(f"{_STORAGE}{number}" for number in dict.fromkeys(numbers or _OTHERS))


def offers_for(sop_classes: Sequence[str]) -> list[Offer]:
    """Presentation contexts of a C-GET: each class plain, then in one encoding a context.

    An archive takes one encoding of a context: with all in one it would have to convert the others.
    """
    classes = sop_classes[: _MOST_CONTEXTS - 1]
    offers = [Offer(one, LITTLE_ENDIAN, is_received=True) for one in classes]
    for syntax in _COMPRESSED:
        if len(offers) + len(classes) < _MOST_CONTEXTS:
            offers += [Offer(one, (syntax,), is_received=True) for one in classes]
    return [Offer(_GET, LITTLE_ENDIAN), *offers]


class Getter:
    """Retrieves by C-GET: all over the association that we open, so also through a router."""

    def __init__(self, peer: Peer, intake: Intake, association: Any, store: "_Store") -> None:
        """By `getting`."""
        self._peer, self._intake = peer, intake
        self._association, self._store = association, store

    def series(self, study_uid: str, series: FoundSeries, on_image: OnImage) -> Retrieved:
        """
        Raises:
            PeerError: the archive fell silent or broke off; what had come is kept.
            ResourceError: the disk is full.
        """
        self._store.begin(on_image)
        responses = self._association.send_c_get(_identifier(study_uid, series.series_uid), _GET)
        problem = _problem_of(self._peer, responses)
        if self._store.failure is not None:
            raise self._store.failure
        return Retrieved(len(self._store.names), problem)


@contextlib.contextmanager
def getting(intake: Intake, peer: Peer, sop_classes: Sequence[str]) -> Iterator[Getter]:
    """An association over which series are retrieved by C-GET.

    Raises:
        PeerError: the archive is away, refuses, or offers no C-GET.
    """
    receive_to(intake.state.incoming, Space(intake.state, intake.settings.node.reserve_gb))
    store = _Store(intake)
    with (
        silenced("pydicom"),
        associated(
            intake.state, intake.settings, peer, offers_for(sop_classes),
            on_store=store, answer_timeout_s=ANSWER_TIMEOUT_S,
        ) as association,
    ):  # fmt: skip
        if not any(one.abstract_syntax == _GET for one in association.accepted_contexts):
            raise PeerError(f"{called(peer)} offers no C-GET")
        yield Getter(peer, intake, association, store)


class _Store:
    """Answers the C-STOREs of one association; pynetdicom calls it in the thread of the C-GET."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.failure: ResourceError | None = None
        self.begin(lambda count: None)

    def begin(self, on_image: OnImage) -> None:
        self.names: set[str] = set()
        self._on_image = on_image

    def __call__(self, event: Any) -> int:
        received: ReceivedFile = event.request._dataset_file
        received.close()
        path = Path(received.name)
        try:
            if not received.is_whole or self.failure is not None:
                raise ResourceError("the disk is full; free some space and pull again")
            self.names.add(self._intake.accept(path).name)
        except ResourceError as error:
            self.failure = error
            return _OUT_OF_RESOURCES
        except ScanError:
            return _NOT_UNDERSTOOD
        finally:
            path.unlink(missing_ok=True)
        self._on_image(len(self.names))
        return _SUCCESS


def move_series(
    intake: Intake, peer: Peer, study_uid: str, series: FoundSeries, on_image: OnImage
) -> Retrieved:
    """Let the archive send a series to this box's node, which must run and stand in its table.

    Raises:
        PeerError: the archive is away, refuses or offers no C-MOVE, or the node does not run.
    """
    node = intake.settings.node
    _check_node(node.port)
    with (
        silenced("pydicom"),
        associated(
            intake.state, intake.settings, peer, [Offer(_MOVE, LITTLE_ENDIAN)],
            answer_timeout_s=ANSWER_TIMEOUT_S,
        ) as association,
    ):  # fmt: skip
        identifier = _identifier(study_uid, series.series_uid)
        counted = _Counted(association.send_c_move(identifier, node.ae_title, _MOVE), on_image)
        problem = _problem_of(peer, counted)
    return Retrieved(counted.images, problem)


class _Counted:
    """Responses of a C-MOVE, and what their counters say was sent."""

    def __init__(self, responses: Iterator[Any], on_image: OnImage) -> None:
        self._responses, self._on_image = responses, on_image
        self.images = 0

    def __iter__(self) -> Iterator[Any]:
        for status, identifier in self._responses:
            sent = _counter(status, "Completed") + _counter(status, "Warning")
            if sent > self.images:  # the last response of some archives counts nothing
                self.images = sent
                self._on_image(sent)
            yield status, identifier


def _check_node(port: int) -> None:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError as error:
        raise PeerError(
            f"C-MOVE sends to this box's own node, and nothing listens on port {port}: start "
            "'edge-medgemma clinic'"
        ) from error


def _problem_of(peer: Peer, responses: Any) -> str:
    """Why not everything came; empty where the archive says that it did.

    Raises:
        PeerError: it fell silent or broke off.
    """
    code = None
    failed = 0
    for status, _ in responses:
        code = status.get("Status")
        failed = max(failed, _counter(status, "Failed"))
        if code not in _PENDING:
            break
    if code is None or code in _PENDING:
        raise PeerError(f"{called(peer)} broke off; what had come is kept, pull again for the rest")
    if code == 0xA801:
        return f"{called(peer)} does not know where to send; enter this box in its table"
    if failed:
        return f"{called(peer)} could not send {failed} of the images"
    return "" if code == _SUCCESS else f"{called(peer)} ended with status {code:04X}"


def _counter(status: Any, name: str) -> int:
    return int(status.get(f"NumberOf{name}Suboperations") or 0)


def _identifier(study_uid: str, series_uid: str) -> Any:
    from pydicom.dataset import Dataset

    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.StudyInstanceUID = study_uid
    identifier.SeriesInstanceUID = series_uid
    return identifier
