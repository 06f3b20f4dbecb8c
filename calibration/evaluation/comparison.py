"""Two engines on the same scans, in pairs: which outcomes changed, and whether by chance."""

from collections.abc import Mapping, Sequence

import numpy as np

from edge_medgemma.calibration.evaluation.document import (
    AreaChange,
    Comparison,
    EngineProvenance,
    Flip,
    PairedCounts,
    PairedFinding,
)
from edge_medgemma.calibration.evaluation.figures import number
from edge_medgemma.calibration.evaluation.records import Outcome, Prediction
from edge_medgemma.calibration.statistics.metrics import area_under_curve
from edge_medgemma.calibration.statistics.paired import mcnemar_exact
from edge_medgemma.calibration.statistics.roc import area_change_interval

Pair = tuple[Prediction, Prediction]


def compare(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    engine: EngineProvenance,
    titles: Mapping[str, str],
) -> Comparison:
    """The second engine's predictions beside the first's.

    Args:
        first: of one engine.
        second: of the other, on the same scans; what only one was asked is left out.
        engine: the second.
        titles: by finding code; the findings are in this order.
    """
    other = {(one.study, one.finding): one for one in second}
    pairs = [
        (one, other[one.study, one.finding]) for one in first if (one.study, one.finding) in other
    ]
    return Comparison(
        engine=engine,
        findings=tuple(
            _paired_finding(code, title, [pair for pair in pairs if pair[0].finding == code])
            for code, title in titles.items()
        ),
        flips=tuple(_flip(*pair) for pair in pairs if pair[0].outcome is not pair[1].outcome),
    )


def _flip(before: Prediction, after: Prediction) -> Flip:
    return Flip(
        before.study,
        before.finding,
        before.present,
        before.outcome,
        after.outcome,
        before.log_odds,
        after.log_odds,
    )


def _paired_finding(code: str, title: str, pairs: Sequence[Pair]) -> PairedFinding:
    changes = np.array(
        [
            after.log_odds - before.log_odds
            for before, after in pairs
            if before.log_odds is not None and after.log_odds is not None
        ]
    )
    has_changes = len(changes) > 0
    return PairedFinding(
        code=code,
        title=title,
        all=_paired_counts(pairs),
        positives=_paired_counts([pair for pair in pairs if pair[0].present is True]),
        negatives=_paired_counts([pair for pair in pairs if pair[0].present is False]),
        changed_outcomes=sum(before.outcome is not after.outcome for before, after in pairs),
        log_odds_scans=len(changes),
        median_change=float(np.median(changes)) if has_changes else None,
        median_absolute_change=float(np.median(np.abs(changes))) if has_changes else None,
        largest_absolute_change=float(np.abs(changes).max()) if has_changes else None,
        area=_area_change(pairs),
    )


def _paired_counts(pairs: Sequence[Pair]) -> PairedCounts:
    flags = [
        (before.outcome is Outcome.FLAGGED, after.outcome is Outcome.FLAGGED)
        for before, after in pairs
    ]
    first_only, second_only = flags.count((True, False)), flags.count((False, True))
    return PairedCounts(
        scans=len(flags),
        both=flags.count((True, True)),
        first_only=first_only,
        second_only=second_only,
        neither=flags.count((False, False)),
        p_value=mcnemar_exact(first_only, second_only) if flags else None,
    )


def _area_change(pairs: Sequence[Pair]) -> AreaChange:
    scored = [
        (before, after)
        for before, after in pairs
        if before.present is not None and before.log_odds is not None and after.log_odds is not None
    ]
    present = np.array([bool(before.present) for before, _ in scored], bool)
    positives = int(present.sum())
    counts = (positives, len(present) - positives)
    if not min(counts):
        return AreaChange(None, None, None, None, None, *counts)
    first = np.array([before.log_odds for before, _ in scored])
    second = np.array([after.log_odds for _, after in scored])
    patients = [before.patient for before, _ in scored]
    low, high = area_change_interval(first, second, present, patients)
    areas = area_under_curve(first, present), area_under_curve(second, present)
    return AreaChange(areas[1] - areas[0], number(low), number(high), *areas, *counts)
