"""Asking an archive what it holds (C-FIND). Nothing of the question or the answers is logged."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge_medgemma.runtime.clinic.association import Offer, called
from edge_medgemma.runtime.clinic.settings import Peer
from edge_medgemma.runtime.errors import PeerError, ScanError
from edge_medgemma.runtime.slicing.silence import silenced

MOST_STUDIES = 200
"""Answers that a person can choose from; a question with more is cancelled."""

MOST_SERIES = 2000

WITHOUT_IMAGES = frozenset(
    [
        "AU",
        "DOC",
        "ECG",
        "EPS",
        "FID",
        "HC",
        "HD",
        "IVOCT",
        "KER",
        "KO",
        "LEN",
        "LS",
        "M3D",
        "OAM",
        "OSS",
        "OT",
        "PLAN",
        "PR",
        "REG",
        "RESP",
        "RTDOSE",
        "RTIMAGE",
        "RTPLAN",
        "RTRECORD",
        "RTSTRUCT",
        "RWV",
        "SEG",
        "SMR",
        "SR",
        "SRF",
        "STAIN",
        "TEXTUREMAP",
        "VA",
    ]
)
"""Modalities (PS3.16 CID 29) whose series nobody triages: neither counted nor pulled. OT and DOC are
what secondary captures and documents are sent as, our own results among them."""

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
"""Study Root Query/Retrieve Information Model - FIND (PS3.4 C.6.2)."""

LITTLE_ENDIAN = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")

FIND_OFFER = Offer(_FIND, LITTLE_ENDIAN)

_PENDING = (0xFF00, 0xFF01)


@dataclass(frozen=True, slots=True)
class StudyQuestion:
    """What is looked for; what is empty matches everything."""

    study_uid: str = ""
    patient_id: str = ""
    accession: str = ""
    date: str = ""
    """YYYYMMDD, or a range with a hyphen (PS3.4 C.2.2.2.5)."""
    modality: str = ""

    def check(self) -> None:
        """
        Raises:
            ScanError: nothing that narrows the question down, or a character that stands for others.
        """
        if not (self.study_uid or self.patient_id or self.accession or self.date):
            raise ScanError("say which study: its UID, an accession or patient number, or a date")
        for value in (self.study_uid, self.patient_id, self.accession, self.modality):
            if any(letter in value for letter in "*?\\") or not value.isprintable():
                raise ScanError("a number to look for has none of * ? \\ in it; give it in full")


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """A study that an archive has. Whose it is, is not asked."""

    study_uid: str
    date: str
    time: str
    modalities: tuple[str, ...]
    sop_classes: tuple[str, ...]
    """Empty where the archive does not tell."""
    instances: int | None
    """All objects, also those without images; None where the archive does not tell."""


@dataclass(frozen=True, slots=True)
class FoundSeries:
    """A series that an archive has."""

    series_uid: str
    modality: str
    body_part: str
    instances: int | None

    @property
    def has_images(self) -> bool:
        """Whether there may be something to triage in it."""
        return self.modality not in WITHOUT_IMAGES


class Archive:
    """Questions to a peer over one association."""

    def __init__(self, peer: Peer, association: Any) -> None:
        """Over an open association to which `FIND_OFFER` was offered."""
        self._peer = peer
        self._association = association

    def studies(self, question: StudyQuestion) -> tuple[FoundStudy, ...]:
        """Studies that match, the latest first.

        Raises:
            PeerError: the archive fails, falls silent, or has more than MOST_STUDIES.
            ScanError: the question is none.
        """
        question.check()
        keys = {
            "QueryRetrieveLevel": "STUDY",
            "StudyInstanceUID": question.study_uid,
            "PatientID": question.patient_id,
            "AccessionNumber": question.accession,
            "StudyDate": question.date,
            "StudyTime": "",
            "ModalitiesInStudy": question.modality,
            "SOPClassesInStudy": "",
            "NumberOfStudyRelatedInstances": "",
        }
        found = {}
        for answer in self._answers(keys, MOST_STUDIES):
            study = FoundStudy(
                study_uid=_text(answer, "StudyInstanceUID"),
                date=_text(answer, "StudyDate"),
                time=_text(answer, "StudyTime"),
                modalities=_texts(answer, "ModalitiesInStudy"),
                sop_classes=_texts(answer, "SOPClassesInStudy"),
                instances=_number(answer, "NumberOfStudyRelatedInstances"),
            )
            # An archive that does not know the key answers with all modalities.
            is_asked = not question.modality or question.modality in study.modalities
            if study.study_uid and (is_asked or not study.modalities):
                found[study.study_uid] = study
        return tuple(sorted(found.values(), key=lambda study: (study.date, study.time))[::-1])

    def series(self, study_uid: str) -> tuple[FoundSeries, ...]:
        """All series of a study, also those without images.

        Raises:
            PeerError: the archive fails, falls silent, or has more than MOST_SERIES.
        """
        keys = {
            "QueryRetrieveLevel": "SERIES",
            "StudyInstanceUID": study_uid,
            "SeriesInstanceUID": "",
            "Modality": "",
            "BodyPartExamined": "",
            "NumberOfSeriesRelatedInstances": "",
        }
        found = {}
        for answer in self._answers(keys, MOST_SERIES):
            series = FoundSeries(
                series_uid=_text(answer, "SeriesInstanceUID"),
                modality=_text(answer, "Modality"),
                body_part=_text(answer, "BodyPartExamined"),
                instances=_number(answer, "NumberOfSeriesRelatedInstances"),
            )
            if series.series_uid:
                found[series.series_uid] = series
        return tuple(found.values())

    def _answers(self, keys: dict[str, str], most: int) -> Iterator[Any]:
        """Identifiers of a C-FIND.

        Raises:
            PeerError: the archive fails or falls silent, or there are more than `most`.
        """
        with silenced("pydicom"):
            answers = self._association.send_c_find(_identifier(keys), _FIND, msg_id=1)
            for count, (status, identifier) in enumerate(answers, start=1):
                code = status.get("Status")
                if code is None:
                    raise PeerError(f"{called(self._peer)} fell silent in the middle of an answer")
                if code == 0x0000:
                    return
                if code not in _PENDING:
                    raise PeerError(
                        f"{called(self._peer)} could not answer the question (status {code:04X}); "
                        "look at its log"
                    )
                if count > most:
                    self._association.send_c_cancel(1, query_model=_FIND)
                    raise PeerError(
                        f"{called(self._peer)} has more than {most} that match; narrow it down"
                    )
                if identifier is not None:
                    yield identifier


def _identifier(keys: dict[str, str]) -> Any:
    from pydicom.dataset import Dataset

    identifier = Dataset()
    if not all(value.isascii() for value in keys.values()):
        identifier.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def _texts(identifier: Any, keyword: str) -> tuple[str, ...]:
    """Values of an element; what cannot be read counts as not told."""
    try:
        value = identifier.get(keyword)
    except (ValueError, TypeError, AttributeError, LookupError):
        return ()
    values = [value] if isinstance(value, str) else list(value or ())
    return tuple(text for one in values if (text := str(one).strip(" \0")))


def _text(identifier: Any, keyword: str) -> str:
    return (*_texts(identifier, keyword), "")[0]


def _number(identifier: Any, keyword: str) -> int | None:
    try:
        value = identifier.get(keyword)
        number = None if value in (None, "") else int(value)
    except (ValueError, TypeError, AttributeError, LookupError):
        return None
    return number if number is None or number >= 0 else None
