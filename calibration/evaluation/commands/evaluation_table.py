"""An evaluation as tables in the terminal; no share stands without the scans that it was counted over."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from edge_medgemma.calibration.evaluation.document import (
    AreaChange,
    Comparison,
    EvaluationDocument,
    FindingEntry,
    Flow,
)
from edge_medgemma.calibration.evaluation.figure_entries import SUBGROUP_MINIMUM, Proportion
from edge_medgemma.runtime.commands.sanitize import printable
from edge_medgemma.runtime.commands.tables import print_table

TOO_FEW = f"n < {SUBGROUP_MINIMUM}"

OWN_THRESHOLDS = "Each engine flags by the thresholds that hold for it: fitted ones where it has them, else the protocol's."

MAX_NAMES = 3
"""Names shown of a list; the document has all."""


def print_evaluation(document: EvaluationDocument) -> None:
    """Flow, figures of every finding, subgroups and comparison."""
    lines = [Text(printable(line)) for line in flow_lines(document.flow)]
    parts: list[Table | Text] = [*lines, _findings(document.findings)]
    parts.append(
        Text("In brackets: 95 % intervals. Not assessable counts as missed and as not passed.")
    )
    if any(finding.subgroups for finding in document.findings):
        parts.append(_subgroups(document.findings))
    if document.comparison is not None:
        parts += [_comparison(document.comparison), Text(OWN_THRESHOLDS)]
    print_table(*parts, document.intended_use)


def flow_lines(flow: Flow) -> Iterator[str]:
    """Scans and labels from what was found to what was assessed."""
    if not flow.label_rows:
        yield f"{flow.studies_found} studies found, none labelled: answers without figures"
        yield from _skipped_and_notes(flow)
        return
    yield (
        f"{flow.label_rows} labels, {flow.studies_found} studies found: {flow.studies_labelled} labelled, "
        f"{flow.studies_read} read, {flow.studies_assessed} assessed, {flow.patients} patients"
    )
    for reason, studies in flow.not_assessable.items():
        yield f"not assessable: {studies} because {reason}"
    for words, names in (
        ("labels without a study", flow.labels_without_study),
        ("studies without a label", flow.studies_without_label),
        ("labels that fit several studies, not used", flow.labels_of_several_studies),
        ("studies that several labels fit, not used", flow.studies_of_several_labels),
        ("labelled findings that no protocol asks for", flow.findings_not_asked),
    ):
        if names:
            yield f"{words}: {len(names)} ({_some(names)})"
    yield from _skipped_and_notes(flow)


def _skipped_and_notes(flow: Flow) -> Iterator[str]:
    if flow.files_skipped:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in flow.files_skipped.items())
        yield f"files skipped: {reasons}"
    for note in flow.notes:
        yield f"note: {note}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")


def _findings(findings: Sequence[FindingEntry]) -> Table:
    table = Table(
        "finding", "with", "without", "not assessable", "sensitivity", "specificity", "AUC"
    )
    table.columns[0].no_wrap = True
    for one in findings:
        table.add_row(
            one.code,
            str(one.positives),
            str(one.negatives),
            str(one.not_assessable_positives + one.not_assessable_negatives),
            _share(one.primary.sensitivity),
            _share(one.primary.specificity),
            _separation(one),
        )
        if one.predictive_values is not None:
            values = one.predictive_values
            table.add_row(
                Text(f"  at {values.prevalence:.1%}", style="dim"), "", "", "",
                "PPV " + _interval(values.positive, values.positive_low, values.positive_high),
                "NPV " + _interval(values.negative, values.negative_low, values.negative_high),
                "",
            )  # fmt: skip
    return table


def _separation(finding: FindingEntry) -> str:
    """The area, with its own counts where some scans have no log-odds."""
    area = finding.area
    words = _interval(area.value, area.low, area.high)
    if (area.positives, area.negatives) == (finding.positives, finding.negatives):
        return words
    return f"{words} of {area.positives} with, {area.negatives} without"


def _subgroups(findings: Sequence[FindingEntry]) -> Table:
    table = Table("finding", "subgroup", "with", "without", "sensitivity", "specificity", "AUC")
    for finding in findings:
        for one in finding.subgroups:
            table.add_row(
                finding.code,
                printable(f"{one.attribute}: {one.value}"),
                str(one.positives),
                str(one.negatives),
                _share(one.sensitivity),
                _share(one.specificity),
                _interval(one.area.value, one.area.low, one.area.high, TOO_FEW),
            )
    return table


def _comparison(comparison: Comparison) -> Table:
    engine = comparison.engine
    title = (
        f"second engine: {printable(engine.name)} {engine.manifest_sha256[:12]}, decoder "
        f"{engine.precision['decoder']}; p of McNemar, change of log-odds and AUC"
    )
    table = Table(
        "finding", "n", "first only", "second only", "p", "p with", "p without", "median |Δ|",
        "largest |Δ|", "Δ AUC", title=title, title_justify="left",
    )  # fmt: skip
    table.columns[0].no_wrap = True
    table.columns[-1].no_wrap = True  # rich would cut what a least width leaves no place for
    for one in comparison.findings:
        table.add_row(
            one.code,
            str(one.all.scans),
            str(one.all.first_only),
            str(one.all.second_only),
            _number(one.all.p_value),
            f"{_number(one.positives.p_value)} (n = {one.positives.scans})",
            f"{_number(one.negatives.p_value)} (n = {one.negatives.scans})",
            _number(one.median_absolute_change),
            _number(one.largest_absolute_change),
            _change(one.area),
        )
    return table


def _change(area: AreaChange) -> str:
    if area.value is None or area.low is None or area.high is None:
        return "none"
    return f"{area.value:+.3f}\n({area.low:+.3f} to {area.high:+.3f})"


def _share(one: Proportion) -> str:
    counts = f"{one.successes}/{one.trials}"
    return f"{counts} {_interval(one.rate, one.low, one.high)}" if one.rate is not None else counts


def _interval(
    value: float | None, low: float | None, high: float | None, without: str = "none"
) -> str:
    if value is None:
        return without
    within = f" ({low:.3f}-{high:.3f})" if low is not None and high is not None else ""
    return f"{value:.3f}{within}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
