"""Rows of a table gathered by study, whatever stands there twice or against itself."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache

from edge_medgemma.calibration.evaluation.records import LabelRow
from edge_medgemma.runtime.triage.protocol import builtin_protocols


@cache
def known_codes() -> tuple[str, ...]:
    """Codes of the findings of all built-in protocols, sorted."""
    return tuple(sorted({f.code for protocol in builtin_protocols() for f in protocol.findings}))


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun: `1 row`, `2 rows`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


class RowCollector:
    """Label rows by key, in the order of the table.

    A finding that two rows of one key contradict each other on counts as not read.
    """

    def __init__(self) -> None:
        self._findings: dict[str, dict[str, bool | None]] = {}
        self._patients: dict[str, str] = {}
        self._attributes: dict[str, dict[str, str]] = {}
        self._contradicted: set[tuple[str, str]] = set()
        self._counts: Counter[str] = Counter()

    def add(
        self,
        key: str,
        findings: Mapping[str, bool | None],
        patient: str = "",
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """One row of the table."""
        given = {name: text for name, text in (attributes or {}).items() if text}
        if key not in self._findings:
            self._findings[key] = dict(findings)
            self._patients[key] = patient
            self._attributes[key] = given
            return
        self._counts["again"] += 1
        merged = self._findings[key]
        for code, value in findings.items():
            if merged.get(code) is None and (key, code) not in self._contradicted:
                merged[code] = value
            elif value is not None and value is not merged[code]:
                self._contradicted.add((key, code))
                merged[code] = None
        if patient and self._patients[key] not in ("", patient):
            self._counts["patients"] += 1
        self._patients[key] = self._patients[key] or patient
        for name, text in given.items():
            known = self._attributes[key].setdefault(name, text)
            self._counts["attributes"] += known != text

    def rows(self) -> tuple[LabelRow, ...]:
        """One row a key."""
        return tuple(
            LabelRow(key, found, self._patients[key], self._attributes[key])
            for key, found in self._findings.items()
        )

    def notes(self, *, repeats_are_faults: bool = True) -> list[str]:
        """One sentence for each kind of thing that stood there twice."""
        notes = []
        if (again := self._counts["again"]) and repeats_are_faults:
            notes.append(f"{counted(again, 'row')} of the table named a study once more")
        if self._contradicted:
            keys = {key for key, _ in self._contradicted}
            notes.append(
                f"{counted(len(self._contradicted), 'finding')} of "
                f"{counted(len(keys), 'study', 'studies')} contradicted by a second row: "
                "taken as not read"
            )
        if patients := self._counts["patients"]:
            notes.append(f"{counted(patients, 'row')} named another patient: the first is kept")
        if attributes := self._counts["attributes"]:
            notes.append(f"{counted(attributes, 'attribute')} contradicted: the first is kept")
        return notes


def codes_in_order(rows: Iterable[Mapping[str, bool | None]]) -> tuple[str, ...]:
    """Codes that the rows speak of, in the order in which they come."""
    return tuple(dict.fromkeys(code for findings in rows for code in findings))
