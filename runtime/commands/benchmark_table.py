"""A benchmark as tables for the terminal."""

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from edge_medgemma.runtime.profiling.baseline import Comparison
from edge_medgemma.runtime.profiling.record import Benchmark, Layer, Row
from edge_medgemma.runtime.profiling.report.benchmark_labels import (
    band_words,
    ceiling_words,
    load_words,
    machine_words,
    peaks_words,
    rate_words,
    seconds,
    settings_words,
)

TITLES = {
    Layer.COMPONENT: "Parts of the engine",
    Layer.END_TO_END: "Whole scans",
}

_STYLES = {"slower": "bold red", "faster": "green"}


def benchmark_tables(benchmark: Benchmark) -> list[RenderableType]:
    """Tables and lines for the terminal, in order."""
    parts: list[RenderableType] = [
        Text(settings_words(benchmark)),
        Text(machine_words(benchmark)),
        Text(peaks_words(benchmark)),
    ]
    parts += [_table(benchmark, layer) for layer in Layer]
    if load := load_words(benchmark):
        parts.append(load)
    parts += [Text(f"{row.name}: {row.reason}") for row in benchmark.rows if row.reason]
    return parts


def comparison_table(comparison: Comparison) -> list[RenderableType]:
    """The change of every row against the baseline, as latency."""
    table = Table(title="Against the baseline", title_justify="left", title_style="bold")
    table.add_column("row", no_wrap=True)
    for name in ("before", "now", "change", "± band", "verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    for change in comparison.changes:
        table.add_row(
            change.name,
            seconds(change.old_s),
            seconds(change.new_s),
            f"{change.relative:+.1%}",
            f"{change.band:.0%}",
            Text(change.verdict, style=_STYLES.get(change.verdict, "")),
        )
    parts: list[RenderableType] = [table]
    if comparison.missing:
        parts.append(f"Only in one of the two runs: {', '.join(comparison.missing)}.")
    if comparison.differences:
        parts.append(f"Not the same in both runs: {', '.join(comparison.differences)}.")
    return parts


def _table(benchmark: Benchmark, layer: Layer) -> Table:
    is_scan = layer is Layer.END_TO_END
    table = Table(title=TITLES[layer], title_justify="left", title_style="bold")
    table.add_column("row", no_wrap=True)
    names = ["median", "p90", "n", "± band", "first flag" if is_scan else "rate"]
    names += (
        ["peak GB", "J/scan" if is_scan else "work/J"] if _has_power(benchmark) else ["peak GB"]
    )
    names += [] if is_scan else ["of ceiling"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in benchmark.rows:
        if row.layer is layer:
            table.add_row(row.name, *_cells(row, is_scan, _has_power(benchmark)))
    return table


def _has_power(benchmark: Benchmark) -> bool:
    return any(row.energy for row in benchmark.rows)


def _cells(row: Row, is_scan: bool, has_power: bool) -> list[str]:
    latency = row.latency
    if latency is None:
        return ["not run"]
    cells = [
        seconds(latency.median_s),
        seconds(latency.p90_s) if latency.n > 1 else "",
        str(latency.n),
        band_words(row),
        (seconds(row.ttff.median_s) if row.ttff else "") if is_scan else rate_words(row),
        f"{row.peak_bytes / 1e9:.2f}" if row.peak_bytes else "",
    ]
    if has_power:
        value = row.joules if is_scan else row.work_per_joule
        cells.append("" if value is None else f"{value:.3g}")
    return cells if is_scan else [*cells, ceiling_words(row)]
