"""`benchmark --html`: one file with the tables and four charts; no network, no scripts, prints."""

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from edge_medgemma.runtime.files import write_atomically
from edge_medgemma.runtime.profiling.distribution import BAND_FLOOR, SINGLE_BAND
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
from edge_medgemma.runtime.reporting.charts import Axis, Bar, Figure, Series, bar_chart, line_chart

TEMPLATE_NAME = "benchmark.html"

STAGES = {
    "read the scan": ("discover", "decode", "render"),
    "vision": ("vision",),
    "blank baseline": ("control",),
    "prefill": ("prefill",),
    "ask": ("score", "evidence"),
    "rest": (),
}
"""Segments of a bar, and the report's stages in each; `rest` takes all others."""


def write_benchmark_page(benchmark: Benchmark, path: Path) -> None:
    """Write the page; readers see the old file or the whole new one.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    write_atomically(path, render_page(benchmark).encode())


def render_page(benchmark: Benchmark) -> str:
    """The benchmark as one HTML document; everything in it is escaped."""
    figures = [stages_figure, slices_figure, context_figure, roofline_figure]
    return (
        _environment()
        .get_template(TEMPLATE_NAME)
        .render(
            benchmark=benchmark,
            figures=[figure for draw in figures if (figure := draw(benchmark))],
            components=[row for row in benchmark.rows if row.layer is Layer.COMPONENT],
            scans=[row for row in benchmark.rows if row.layer is Layer.END_TO_END],
            has_power=any(row.energy for row in benchmark.rows),
            load=load_words(benchmark),
            floor=f"{BAND_FLOOR:.0%}",
            single=f"{SINGLE_BAND:.0%}",
        )
    )


def stages_figure(benchmark: Benchmark) -> Figure | None:
    """Where the time of a scan goes, per slice."""
    rows = [row for row in _scans(benchmark) if row.stages_s]
    if not rows:
        return None
    bars = []
    for row in rows:
        assert row.stages_s is not None and row.latency is not None
        known = {stage for stages in STAGES.values() for stage in stages}
        parts = [sum(row.stages_s.get(s, 0.0) for s in stages) for stages in STAGES.values()]
        parts[-1] = sum(value for stage, value in row.stages_s.items() if stage not in known)
        per_slice = tuple(part / row.slices for part in parts)
        bars.append(Bar(row.name, per_slice, seconds(sum(per_slice))))
    return Figure(
        "Time per slice and stage",
        Markup(bar_chart(bars, tuple(STAGES), "seconds per slice")),
        tuple((name, style) for style, name in enumerate(STAGES)),
        "The repetition with the median latency; stages add up to it.",
    )


def slices_figure(benchmark: Benchmark) -> Figure | None:
    """Latency against the number of slices."""
    series = []
    for style, state in enumerate(("cold", "warm", "cached")):
        rows = [row for row in _scans(benchmark) if row.name.endswith(state)]
        points = tuple((float(r.slices), r.latency.median_s) for r in rows if r.latency)
        if points:
            series.append(Series(f"whole scan, {state}", points, style))
    flags = [row for row in _scans(benchmark) if row.name.endswith("warm")]
    points = tuple((float(row.slices), row.ttff.median_s) for row in flags if row.ttff)
    if points:
        series.append(Series("first flag, warm", points, 3))
    if not series:
        return None
    svg = line_chart(series, Axis("slices"), Axis("seconds"))
    caption = "Folder to triage.json, medians."
    return Figure("Latency against slices", Markup(svg), _legend(series), caption)


def context_figure(benchmark: Benchmark) -> Figure | None:
    """Decode throughput against context length."""
    rows = [row for row in benchmark.rows if row.name.startswith("tg") and row.latency]
    if not rows:
        return None
    points = tuple((float(row.depth), row.rate or 0.0) for row in rows)
    series = [Series("measured", points, 0)]
    ceilings = tuple((float(r.depth), r.work / r.ceiling.seconds) for r in rows if r.ceiling)
    if ceilings:
        series.append(
            Series("ceiling: bytes at measured read bandwidth", ceilings, 1, is_dashed=True)
        )
    svg = line_chart(series, Axis("context, tokens"), Axis("tokens per second"))
    caption = "Greedy, one token a pass."
    return Figure("Decode throughput against context", Markup(svg), _legend(series), caption)


def roofline_figure(benchmark: Benchmark) -> Figure | None:
    """Rows under the measured roof of the machine, or of the GPU that ran them."""
    peaks = benchmark.device_peaks or benchmark.peaks
    rows = [row for row in benchmark.rows if row.ceiling and row.latency]
    if not rows or peaks.read_bytes_per_s is None or peaks.f32_flop_per_s is None:
        return None
    points, labels = [], []
    for row in rows:
        assert row.ceiling is not None and row.latency is not None
        work = row.ceiling.work
        points.append((work.flop / work.bytes, work.flop / row.latency.median_s / 1e9))
        labels.append(row.name)
    roofs: dict[str, float | None] = {"16-bit product": peaks.bf16_flop_per_s}
    if not peaks.device:
        roofs = {"f32": peaks.f32_flop_per_s, "int8": peaks.int8_flop_per_s}
        roofs["bf16"] = peaks.bf16_flop_per_s
        roofs["decoder's weights"] = peaks.weight_only_flop_per_s
    left, right = min(x for x, _ in points) / 2, max(x for x, _ in points) * 2
    known = [peak for peak in roofs.values() if peak is not None]
    far = max(right, 2 * max(known) / peaks.read_bytes_per_s)
    series = []
    for style, (name, peak) in enumerate(roofs.items(), start=1):
        if peak is not None:
            ridge = max(peak / peaks.read_bytes_per_s, left * 1.001)
            roof = (
                (left, left * peaks.read_bytes_per_s / 1e9),
                (ridge, peak / 1e9),
                (far, peak / 1e9),
            )
            series.append(Series(f"peak {name}", roof, style, is_dashed=True))
    shown = Series("rows", tuple(points), 0, has_line=False, labels=tuple(labels))
    svg = line_chart(
        [shown, *series], Axis("FLOP per byte", is_log=True), Axis("GFLOP per second", is_log=True)
    )
    caption = "Work that the mathematics needs; the slope is the measured read bandwidth."
    return Figure("Roofline", Markup(svg), _legend([shown, *series]), caption)


def _scans(benchmark: Benchmark) -> list[Row]:
    rows = [row for row in benchmark.rows if row.layer is Layer.END_TO_END and row.latency]
    return [row for row in rows if row.name.startswith("ct")]


def _legend(series: list[Series]) -> tuple[tuple[str, int], ...]:
    return tuple((one.name, one.style) for one in series)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        band=band_words,
        ceiling=ceiling_words,
        machine=machine_words,
        peaks=peaks_words,
        rate=rate_words,
        seconds=seconds,
        settings=settings_words,
    )
    return environment
