"""Predictions: one row a study and finding, made of results and labels, as a table on disk.

The table holds no time and no path: it is the same, byte for byte, however the results came about.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from edge_medgemma.calibration.evaluation.cases import EvaluationPlan, LabelledStudy
from edge_medgemma.calibration.evaluation.records import Outcome, Prediction
from edge_medgemma.calibration.evaluation.results import Answer, StudyResult
from edge_medgemma.runtime.errors import EvaluationError
from edge_medgemma.runtime.files import write_atomically

PREDICTIONS_NAME = "predictions.csv"

Value = TypeVar("Value")

COLUMNS = tuple(field.name for field in fields(Prediction))

NOT_ASKED = "no protocol of this study asks for it"

_RANK = {Outcome.FLAGGED: 0, Outcome.NOT_ASSESSABLE: 1, Outcome.NOT_FLAGGED: 2}
"""Which outcome stands where two protocols ask for one finding: doubt is not taken away."""


def patient_numbers(studies: Sequence[LabelledStudy]) -> list[int]:
    """Number of the patient of each study, from 1; a study whose patient is not told is its own."""
    numbers: dict[str, int] = {}
    found = []
    for place, study in enumerate(studies):
        name = study.row.patient if study.row else ""
        identity = f"patient {name}" if name else f"study {place}"
        found.append(numbers.setdefault(identity, len(numbers) + 1))
    return found


def make_predictions(
    plan: EvaluationPlan, results: Mapping[str, StudyResult]
) -> tuple[Prediction, ...]:
    """What triage said of every finding that was asked or is labelled, in the order of the studies.

    Args:
        plan: studies and labels.
        results: by key of the case; every case of the plan has one.
    """
    return tuple(
        prediction
        for study, patient in zip(plan.studies, patient_numbers(plan.studies), strict=True)
        for prediction in _of_study(study, patient, plan.codes, results)
    )


def _of_study(
    study: LabelledStudy,
    patient: int,
    codes: Sequence[str],
    results: Mapping[str, StudyResult],
) -> list[Prediction]:
    own = [results[case.key] for case in study.cases]
    chosen: dict[str, tuple[StudyResult, Answer]] = {}
    for result in own:
        for answer in result.answers:
            known = chosen.get(answer.code)
            if known is None or _order(answer) < _order(known[1]):
                chosen[answer.code] = (result, answer)
    found = [_prediction(study, patient, result, answer) for result, answer in chosen.values()]
    labelled = {} if study.row is None else study.row.findings
    for code in codes:
        if code not in chosen and labelled.get(code) is not None:
            found.append(_not_asked(study, patient, own, code))
    return found


def _order(answer: Answer) -> tuple[int, float]:
    return _RANK[answer.outcome], -(answer.log_odds if answer.log_odds is not None else -math.inf)


def _prediction(
    study: LabelledStudy, patient: int, result: StudyResult, answer: Answer
) -> Prediction:
    reasons = [*result.limitations, *([answer.reason] if answer.reason else [])]
    return Prediction(
        study=study.name,
        patient=patient,
        study_uid=result.study_uid,
        case=result.key,
        protocol=result.protocol.name if result.protocol else "",
        finding=answer.code,
        present=None if study.row is None else study.row.findings.get(answer.code),
        outcome=answer.outcome,
        is_assessable=result.is_assessable,
        reason="; ".join(dict.fromkeys(reasons)),
        log_odds=answer.log_odds,
        baseline_log_odds=answer.baseline_log_odds,
        score=answer.score,
        threshold=answer.threshold,
        slices=result.slices,
    )


def _not_asked(
    study: LabelledStudy, patient: int, results: Sequence[StudyResult], code: str
) -> Prediction:
    reasons = [word for result in results for word in result.limitations]
    return Prediction(
        study=study.name,
        patient=patient,
        study_uid=results[0].study_uid,
        case=results[0].key,
        protocol="",
        finding=code,
        present=None if study.row is None else study.row.findings.get(code),
        outcome=Outcome.NOT_ASSESSABLE,
        is_assessable=False,
        reason="; ".join(dict.fromkeys(reasons)) or NOT_ASKED,
        log_odds=None,
        baseline_log_odds=None,
        score=None,
        threshold=0.0,
        slices=max(result.slices for result in results),
    )


def dump_predictions(predictions: Sequence[Prediction]) -> str:
    """The table as text; numbers are written so that reading gives the very same."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in predictions:
        writer.writerow([_written(getattr(one, name)) for name in COLUMNS])
    return text.getvalue()


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write the table; readers see the old file or the whole new one.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    write_atomically(path, dump_predictions(predictions).encode())


def read_predictions(path: Path) -> tuple[Prediction, ...]:
    """The rows of a table that `write_predictions` wrote.

    Raises:
        EvaluationError: it is missing, has other columns or a value that cannot be, or the same study
            and finding twice.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(
            f"'{path}' cannot be read ({error}); expected the predictions of 'edge-medgemma evaluate'"
        ) from None
    if not lines or tuple(lines[0]) != COLUMNS:
        raise EvaluationError(
            f"'{path}' has other columns than {', '.join(COLUMNS)}; evaluate again with this version"
        )
    found: dict[tuple[str, str], Prediction] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            one = _read_row(dict(zip(COLUMNS, line, strict=True)))
        except ValueError as error:
            raise EvaluationError(
                f"'{path}' is altered in row {number} ({error}); evaluate again"
            ) from None
        if (one.study, one.finding) in found:
            raise EvaluationError(
                f"'{path}' has a study and finding twice, in row {number}; evaluate again"
            )
        found[one.study, one.finding] = one
    return tuple(found.values())


def _written(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)


def _read_row(row: Mapping[str, str]) -> Prediction:
    return Prediction(
        study=_text(row["study"]),
        patient=int(row["patient"]),
        study_uid=row["study_uid"],
        case=_text(row["case"]),
        protocol=row["protocol"],
        finding=_text(row["finding"]),
        present=_optional(row["present"], _flag),
        outcome=Outcome(row["outcome"]),
        is_assessable=_flag(row["is_assessable"]),
        reason=row["reason"],
        log_odds=_optional(row["log_odds"], _number),
        baseline_log_odds=_optional(row["baseline_log_odds"], _number),
        score=_optional(row["score"], _number),
        threshold=_number(row["threshold"]),
        slices=int(row["slices"]),
    )


def _optional(text: str, read: Callable[[str], Value]) -> Value | None:
    return read(text) if text else None


def _text(text: str) -> str:
    if not text:
        raise ValueError("a name is empty")
    return text


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"'{text[:20]}' is neither 0 nor 1")
    return text == "1"


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return value
