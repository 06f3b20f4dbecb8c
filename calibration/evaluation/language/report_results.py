"""Reports generated, and counted against their references: reports.json and reports.csv."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_medgemma import __version__
from edge_medgemma.calibration.evaluation.figures import proportion
from edge_medgemma.calibration.evaluation.language.answering import (
    answer_about,
    picture_prefix,
)
from edge_medgemma.calibration.evaluation.language.figures import resampled_interval
from edge_medgemma.calibration.evaluation.language.finding_mentions import (
    Mention,
    mentions,
    unknown_codes,
)
from edge_medgemma.calibration.evaluation.language.journal import Journal
from edge_medgemma.calibration.evaluation.language.pictures import read_picture
from edge_medgemma.calibration.evaluation.language.prompts import REPORT_FORM
from edge_medgemma.calibration.evaluation.language.report_document import (
    FindingsEntry,
    MentionTable,
)
from edge_medgemma.calibration.evaluation.language.report_sets import ReportSet
from edge_medgemma.calibration.statistics.metrics import BOOTSTRAP_SAMPLES
from edge_medgemma.runtime.errors import DatasetError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.triage.picture_chat import require_free_questions
from edge_medgemma.runtime.triage.protocol import Protocol

ALL_FINDINGS = "all findings"

Mentions = Sequence[Mapping[str, Mention]]


@dataclass(frozen=True, slots=True)
class GeneratedReport:
    """A line of generated.jsonl."""

    number: int
    text: str
    tokens: int
    ending: str


def generate_reports(
    engine: Engine,
    reports: ReportSet,
    max_tokens: int,
    path: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """A report on every picture, in order; those that `path` has already are not written again.

    Raises:
        EngineError: the engine was made for a few findings alone.
        DatasetError: a picture is missing or cannot be read.
        ResourceError: the file is of another run, or cannot be written.
    """
    require_free_questions(engine)
    missing = [
        pair.picture for pair in reports.pairs if pair.picture and not pair.picture.is_file()
    ]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(reports.pairs)} pictures are missing, the first '{missing[0]}'"
        )
    depends_on = {
        "engine": engine.manifest.sha256,
        "dataset": f"{reports.layout} {reports.sha256}",
        "prompt": REPORT_FORM.sha256,
        "longest report": max_tokens,
        "program": __version__,
    }
    with Journal(path, depends_on, GeneratedReport) as journal:
        written = {row.number for row in journal.rows}
        waiting = [
            (pair.number, pair.picture)
            for pair in reports.pairs
            if pair.number not in written and pair.picture is not None
        ]
        for done, (number, picture) in enumerate(waiting, start=len(written) + 1):
            prefix = picture_prefix(engine, read_picture(picture, REPORT_FORM.is_square))
            found = answer_about(engine, prefix, REPORT_FORM.text(""), max_tokens)
            journal.append(GeneratedReport(number, found.text, found.tokens, found.ending.value))
            if on_progress is not None:
                on_progress(done, len(reports.pairs))
        texts = {row.number: row.text for row in journal.rows}
    return [texts[pair.number] for pair in reports.pairs]


def count_findings(
    protocol: Protocol, reports: Sequence[str], references: Sequence[str]
) -> tuple[FindingsEntry, Mentions, Mentions]:
    """Tables of every finding of a protocol and of all together, and what each text says.

    Raises:
        DatasetError: there are terms for none of the protocol's findings.
    """
    codes = [finding.code for finding in protocol.findings]
    unknown = unknown_codes(codes)
    known = [code for code in codes if code not in unknown]
    if not known:
        raise DatasetError(
            f"there are no terms for the findings of protocol '{protocol.name}'; name a built-in one"
        )
    said = [mentions(text, known) for text in reports]
    expected = [mentions(text, known) for text in references]
    tables = [_table(code, [code], said, expected) for code in known]
    if len(known) > 1:
        tables.append(_table(ALL_FINDINGS, known, said, expected))
    entry = FindingsEntry(protocol.name, protocol.sha256, tuple(tables), tuple(unknown))
    return entry, said, expected


def _table(name: str, codes: Sequence[str], said: Mentions, expected: Mentions) -> MentionTable:
    in_report = np.array([[one[code] is Mention.MENTIONED for code in codes] for one in said])
    in_reference = np.array(
        [[one[code] is Mention.MENTIONED for code in codes] for one in expected]
    )
    both, missed = in_report & in_reference, ~in_report & in_reference
    added = in_report & ~in_reference
    denied_by_report = np.array([[one[code] is Mention.NEGATED for code in codes] for one in said])
    denied_by_reference = np.array(
        [[one[code] is Mention.NEGATED for code in codes] for one in expected]
    )
    value, low, high = _f1(both.sum(1), missed.sum(1), added.sum(1))
    hits = int(both.sum())
    return MentionTable(
        code=name,
        reports=len(said),
        both=hits,
        reference_only=int(missed.sum()),
        report_only=int(added.sum()),
        neither=int((~in_report & ~in_reference).sum()),
        reference_negates=int((added & denied_by_reference).sum()),
        report_negates=int((missed & denied_by_report).sum()),
        recall=proportion(hits, hits + int(missed.sum())),
        precision=proportion(hits, hits + int(added.sum())),
        f1=value,
        f1_low=low,
        f1_high=high,
    )


def _f1(
    both: NDArray[np.int64], missed: NDArray[np.int64], added: NDArray[np.int64]
) -> tuple[float | None, float | None, float | None]:
    """F1 and its interval from the counts [reports] of each report; resamples without a mention are
    left out."""
    if not (both + missed + added).sum():
        return None, None, None
    counts = np.stack([2 * both, 2 * both + missed + added], 1)
    rng = np.random.default_rng(0)
    sums = np.array(
        [
            counts[rng.integers(len(counts), size=len(counts))].sum(0)
            for _ in range(BOOTSTRAP_SAMPLES)
        ]
    )
    kept = sums[sums[:, 1] > 0]
    value = counts.sum(0)
    return float(value[0] / value[1]), *resampled_interval(kept[:, 0] / kept[:, 1])
