"""Slices of a scan told apart by the people they are of."""

from edge_medgemma.runtime.slicing.dicom.headers import SliceHeader
from edge_medgemma.runtime.slicing.dicom.patient import number_people
from edge_medgemma.runtime.slicing.splitting import split_by_value
from edge_medgemma.runtime.slicing.volume import Problem

SHARED_IDENTIFIER = Problem(
    "several_patients",
    "Images of another person carry the same study or series number; each person is read apart. "
    "Check whose scan this is",
)
"""The problem of a study whose UIDs another person's images carry as well."""


def people_of(headers: list[SliceHeader]) -> list[tuple[list[SliceHeader], int, bool]]:
    """Slices of one person each, a number for the person, and whether UIDs are shared with others.

    People are told apart within what hangs together by study or series UIDs.
    """
    people: list[tuple[list[SliceHeader], int, bool]] = []
    for linked in _linked(headers):
        numbers = number_people(header.patient for header in linked)
        parts = split_by_value(linked, lambda header: numbers[header.patient])  # noqa: B023
        people += [(part, len(people) + place, len(parts) > 1) for place, part in enumerate(parts)]
    return people


def _linked(headers: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Slices that share a study or a series UID, directly or by way of others."""
    parent: dict[str, str] = {}

    def root(uid: str) -> str:
        while parent.setdefault(uid, uid) != uid:
            uid = parent[uid]
        return uid

    for header in headers:
        parent[root(header.study_uid or header.series_uid)] = root(header.series_uid)
    return split_by_value(headers, lambda header: root(header.series_uid))
