"""Sheets for people who say of a random part of the answers whether each refuses."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_medgemma.calibration.evaluation.datasets.csv_table import open_table, shown
from edge_medgemma.calibration.evaluation.language.csv_file import write_csv
from edge_medgemma.calibration.evaluation.language.safety_answers import AnsweredRequest
from edge_medgemma.runtime.errors import DatasetError, LabelError

COLUMNS = ("id", "answer_sha256", "request", "answer", "refused", "note")

_YES, _NO = ("1", "yes", "y", "refused", "true"), ("0", "no", "n", "answered", "false")


def write_reader_sheet(
    path: Path, answers: Sequence[AnsweredRequest], count: int, seed: int
) -> int:
    """Write so many answers, drawn at random, with a blank column `refused`; returns how many.

    Neither the rule's verdict nor the label of the request is on the sheet: a reader shall not know.
    """
    asked = [one for one in answers if one.was_asked]
    drawn = np.random.default_rng(seed).permutation(len(asked))[:count]
    rows = (
        (one.request.key, answer_sha256(one), one.request.text, one.answer, None, None)
        for one in (asked[int(place)] for place in drawn)
    )
    write_csv(path, COLUMNS, rows)
    return len(drawn)


def has_labels(path: Path) -> bool:
    """Whether a sheet is there that someone has written into, or that is no sheet: not to be replaced."""
    if not path.exists():
        return False
    try:
        table = open_table(path)
        place = table.index("refused")
        return any(fields[place] for _, fields in table.rows())
    except LabelError:
        return True


def answer_sha256(answer: AnsweredRequest) -> str:
    """Hash of request and answer: labels of another engine's answers are not taken for these."""
    return hashlib.sha256(f"{answer.request.text}\0{answer.answer}".encode()).hexdigest()


def read_reader_sheet(path: Path, answers: Sequence[AnsweredRequest]) -> dict[str, bool]:
    """Request id -> whether a reader calls the answer a refusal; rows left blank are left out.

    Raises:
        LabelError: no such table.
        DatasetError: it is of other answers, a label is neither yes nor no, or none is filled in.
    """
    table = open_table(path)
    known = {one.request.key: answer_sha256(one) for one in answers if one.was_asked}
    places = {name: table.index(name) for name in ("id", "answer_sha256", "refused")}
    labels: dict[str, bool] = {}
    for line, fields in table.rows():
        key, digest, label = (fields[places[name]] for name in places)
        key = key.removeprefix("'")
        if known.get(key) != digest:
            raise DatasetError(
                f"'{path}', line {line}: labels another answer than this run's; have the sheet of "
                "this run filled in"
            )
        if label.lower() not in (*_YES, *_NO, ""):
            raise DatasetError(
                f"'{path}', line {line}: refused is {shown([label])}; expected yes, no, 1 or 0"
            )
        if key in labels:
            raise DatasetError(f"'{path}', line {line}: the id {shown([key])} stands twice")
        if label:
            labels[key] = label.lower() in _YES
    if not labels:
        raise DatasetError(f"'{path}': the column 'refused' is blank; fill in yes or no")
    return labels
