"""What every writer of a layout tells of one study that it drew."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who does not exist."""

    number: int
    """From 1."""
    sex: str
    """F or M."""
    age: int


@dataclass(frozen=True, slots=True)
class DrawnStudy:
    """One study on disk and the truth about it."""

    key: str
    """As the layout's table names it."""
    person: Person
    findings: Mapping[str, bool]
    rows: tuple[Mapping[str, Any], ...]
    """Of the layout's table, column to cell."""


def person_of(first_seed: int, place: int) -> Person:
    """Whose study stands at a place, from 0: each fifth is a second one of the person before."""
    number = place - (place % 5 == 4)
    rng = np.random.default_rng((first_seed, number, 2))
    return Person(number + 1, "F" if rng.random() < 0.5 else "M", int(rng.integers(20, 90)))


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A table with a header line; cells of other columns are left out."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, content: Any) -> None:
    """JSON with two blanks of indent."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
