"""Whose scan a header belongs to: identifiers that are compared and never kept as text."""

import hashlib
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset

KEYWORDS = ["PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"]
"""Attributes that tell people apart (PS3.3 C.7.1.1). The same number under two issuers is two
people, and so is one number with two names, birth dates or sexes."""

SEXES = ("m", "f")
"""Values of patient's sex (0010,0040) that tell people apart; others say that it is not known."""

_KEY = os.urandom(16)
"""Of this process alone: hashes of names must not be comparable with anything outside it."""


@dataclass(frozen=True, slots=True)
class Patient:
    """Keyed hashes of what identifies a person; an empty one was not given."""

    identifiers: tuple[bytes, ...]

    @property
    def num_given(self) -> int:
        """How many of the identifiers the header gives."""
        return sum(map(bool, self.identifiers))

    def may_be(self, other: "Patient") -> bool:
        """Whether nothing that both give tells them apart."""
        pairs = zip(self.identifiers, other.identifiers, strict=True)
        return all(not own or not its or own == its for own, its in pairs)


def patient_of(dataset: Dataset) -> Patient:
    """Who a data set is of. Case, spaces, accents and empty name components are not compared."""
    texts = {keyword: _plain(str(dataset.get(keyword) or "")) for keyword in KEYWORDS}
    if texts["PatientSex"] not in SEXES:
        texts["PatientSex"] = ""
    return Patient(tuple(map(_hidden, texts.values())))


def _plain(text: str) -> str:
    # PS3.5 6.2: alphabetic, ideographic and phonetic groups; the first may be empty
    group = next((group for group in text.split("=") if group.strip(" ^")), "")
    letters = unicodedata.normalize("NFKD", group).casefold().replace("^", " ").replace(",", " ")
    return " ".join("".join(c for c in letters if not unicodedata.combining(c)).split())


def _hidden(plain: str) -> bytes:
    return hashlib.blake2b(plain.encode(), key=_KEY, digest_size=16).digest() if plain else b""


def number_people(patients: Iterable[Patient]) -> dict[Patient, int]:
    """Number of the person, from 0, behind each set of identifiers.

    Sets that contradict each other in nothing are one person. A set that fits several people is
    nobody's: it gets a number of its own.
    """
    distinct = list(dict.fromkeys(patients))
    people: list[list[Patient]] = []
    numbers: dict[Patient, int] = {}
    for patient in sorted(distinct, key=lambda one: -one.num_given):
        fitting = [n for n, known in enumerate(people) if all(map(patient.may_be, known))]
        if len(fitting) == 1:
            people[fitting[0]].append(patient)
            numbers[patient] = fitting[0]
        else:
            people.append([patient])
            numbers[patient] = len(people) - 1
    order = {
        number: place for place, number in enumerate(dict.fromkeys(map(numbers.get, distinct)))
    }
    return {patient: order[numbers[patient]] for patient in distinct}
