"""Results of an evaluation on disk, one line a study, so that nothing is done twice after a kill.

The first line says what run it is: results of another engine are not continued. Each line is synced
before the next study begins; a line that a kill tore off is dropped.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import msgspec

from edge_medgemma.calibration.evaluation.document import Picture, ProtocolProvenance
from edge_medgemma.calibration.evaluation.records import Outcome
from edge_medgemma.calibration.evaluation.synced_lines import (
    append_line,
    lock_alone,
    whole_lines,
)
from edge_medgemma.runtime.documents import Sha256, Size, parse_json
from edge_medgemma.runtime.errors import EvaluationError
from edge_medgemma.runtime.files import write_errors
from edge_medgemma.runtime.triage.report import Effort


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """All that results depend on beside the scans."""

    format: Literal[1]
    engine_sha256: Sha256
    protocol: str
    """`auto` or the name that was given."""
    protocol_sha256s: Mapping[str, Sha256]
    """Name of a protocol of the run -> hash of its file."""
    effort: Effort
    slices: int | None
    program_version: str
    thresholds_sha256: str = ""
    """Hash of the file of fitted thresholds; empty where the protocol's own are used."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What triage said of one finding."""

    code: str
    title: str
    outcome: Outcome
    reason: str
    log_odds: float | None
    baseline_log_odds: float | None
    score: float | None
    probability: float | None
    threshold: float
    pictures: tuple[Picture, ...] = ()
    """Of a wrong answer."""


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What triage said of one study by one protocol."""

    key: str
    """Of the case: the same study and protocol have the same in every run."""
    study_uid: str
    series_uid: str
    protocol: ProtocolProvenance | None
    """None where none fits the study."""
    answers: tuple[Answer, ...]
    limitations: tuple[str, ...]
    """What stood in the way of assessing the study, in plain words."""
    slices: Size
    """Slices shown to the engine."""
    seconds: float
    """From opening the study to its report."""
    attributes: Mapping[str, str]
    """What subgroups are made of, as the scan says it."""

    @property
    def is_assessable(self) -> bool:
        """Whether nothing stood in the way."""
        return not self.limitations


class ResultsFile:
    """An open `results.jsonl`; made by `open_results`."""

    def __init__(self, path: Path, file: IO[bytes], done: dict[str, StudyResult]) -> None:
        """The results so far, and a file that ends with the last of them."""
        self.path = path
        self.done = done
        """By key of the case."""
        self._file = file

    def append(self, result: StudyResult) -> None:
        """Keep a result: it is on the disk when this returns.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        _write_line(self.path, self._file, result)
        self.done[result.key] = result


@contextlib.contextmanager
def open_results(path: Path, identity: RunIdentity) -> Iterator[ResultsFile]:
    """Go on with the results in `path`, or begin them.

    Raises:
        EvaluationError: they are of another engine, protocol, effort, number of slices or version of
            the program; or damaged; or another evaluation is writing them.
        ResourceError: the disk is full or the folder cannot be written.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b", buffering=0)
    with file:
        if not lock_alone(file):
            raise EvaluationError(
                f"another evaluation is writing '{path}'; wait for it, or name another folder with --out"
            )
        file.seek(0)
        lines, whole_bytes = whole_lines(file.read())
        done = _results(path, lines, identity) if lines else {}
        with write_errors(path):
            file.truncate(whole_bytes)
        if not lines:
            _write_line(path, file, identity)
        yield ResultsFile(path, file, done)


def _results(path: Path, lines: list[bytes], identity: RunIdentity) -> dict[str, StudyResult]:
    try:
        found = parse_json(lines[0], RunIdentity)
        results = [parse_json(line, StudyResult) for line in lines[1:]]
    except (ValueError, RecursionError) as error:
        raise EvaluationError(
            f"'{path}' is damaged or of another version ({error}); name another folder with --out, or "
            "delete it to begin anew"
        ) from None
    if difference := _difference(found, identity):
        raise EvaluationError(
            f"'{path}' holds results of {difference}; name another folder with --out, or delete it to "
            "begin anew"
        )
    return {result.key: result for result in results}


def _difference(found: RunIdentity, expected: RunIdentity) -> str:
    """In words, what of another run the results are; empty where they can be continued."""
    if found.engine_sha256 != expected.engine_sha256:
        return f"another engine ({found.engine_sha256[:12]}, this is {expected.engine_sha256[:12]})"
    if found.program_version != expected.program_version:
        return f"version {found.program_version} of the program, this is {expected.program_version}"
    if found.effort is not expected.effort:
        return f"effort {found.effort}, this is {expected.effort}"
    if found.slices != expected.slices:
        words = [str(one.slices or "the protocol's number of") for one in (found, expected)]
        return f"{words[0]} slices, this is {words[1]} slices"
    if found.thresholds_sha256 != expected.thresholds_sha256:
        return "other thresholds"
    changed = [
        name
        for name, sha256 in expected.protocol_sha256s.items()
        if found.protocol_sha256s.get(name, sha256) != sha256
    ]
    if changed:
        return f"another text of protocol {changed[0]}"
    if found.protocol != expected.protocol:
        return f"protocol {found.protocol}, this is {expected.protocol}"
    return ""


def _write_line(path: Path, file: IO[bytes], record: object) -> None:
    with write_errors(path):
        append_line(file, msgspec.json.encode(record))
