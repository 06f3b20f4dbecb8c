"""The page of a benchmark: whole, alone, and with every figure in place."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from support.sample_benchmark import component, sample_benchmark

from edge_medgemma.runtime.profiling.record import Layer, Row
from edge_medgemma.runtime.profiling.report.benchmark_labels import seconds
from edge_medgemma.runtime.profiling.report.benchmark_page import (
    context_figure,
    render_page,
    roofline_figure,
    slices_figure,
    stages_figure,
)
from edge_medgemma.runtime.profiling.roofline import Peaks
from edge_medgemma.runtime.reporting.charts import HEIGHT, WIDTH, Axis, Series, line_chart

NUMBER = r"[-\d.]+"


def test_it_needs_nothing_from_anywhere() -> None:
    page = render_page(sample_benchmark())
    assert not re.search(r"https?://|<script|<img|url\(|@import", page)
    assert page.count("<svg") == 4


def test_every_row_and_reason_is_on_it() -> None:
    benchmark = sample_benchmark()
    page = render_page(benchmark)
    for row in benchmark.rows:
        assert f"<td>{row.name}</td>" in page
    assert "not run: needs about 9.1 GB of memory" in page


def test_names_are_escaped() -> None:
    benchmark = sample_benchmark()
    hostile = "<b>x</b>"
    row = replace(component(hostile, 1.0, 1, "slice"), includes=hostile)
    page = render_page(replace(benchmark, rows=(*benchmark.rows, row)))
    assert hostile not in page and "&lt;b&gt;x" in page


def test_bars_are_as_long_as_their_stages() -> None:
    figure = stages_figure(sample_benchmark())
    assert figure is not None
    root = ElementTree.fromstring(str(figure.svg))
    first = [r for r in root.iter("rect") if r.find("title").text.startswith("ct8 cold")]
    widths = {
        r.find("title").text.split(": ")[1].rsplit(" ", 1)[0]: float(r.get("width")) for r in first
    }
    assert widths["vision"] / widths["prefill"] == pytest.approx(90 / 27, rel=0.02)


def test_points_lie_inside_the_axes() -> None:
    for draw in (slices_figure, context_figure, roofline_figure):
        figure = draw(sample_benchmark())
        assert figure is not None
        root = ElementTree.fromstring(str(figure.svg))
        circles = list(root.iter("circle"))
        assert circles
        for circle in circles:
            assert 0 <= float(circle.get("cx")) <= WIDTH
            assert 0 <= float(circle.get("cy")) <= HEIGHT


def test_what_a_gpu_ran_stands_under_the_roof_of_the_gpu() -> None:
    gpu = Peaks(3.6e11, 3.6e11, 5e13, 5e13, 5e13, 5e13, "RTX 3060")
    benchmark = replace(sample_benchmark(), device_peaks=gpu)
    figure = roofline_figure(benchmark)
    assert figure is not None
    assert [name for name, _ in figure.legend] == ["rows", "peak 16-bit product"]
    assert "Of RTX 3060: copy 360 GB/s, 16-bit product 50000 GFLOP/s." in render_page(benchmark)


def test_a_run_without_measurements_has_no_charts() -> None:
    nothing = (Row("ve1", Layer.COMPONENT, "", reason="broken"),)
    page = render_page(replace(sample_benchmark(), rows=nothing))
    assert "<svg" not in page and "not run: broken" in page


def test_labels_on_one_spot_become_one() -> None:
    series = Series("rows", ((1.0, 1.0), (1.0, 1.0), (9.0, 5.0)), 0, labels=("a", "b", "c"))
    texts = [
        t.text
        for t in ElementTree.fromstring(line_chart([series], Axis("x"), Axis("y"))).iter("text")
    ]
    assert "a, b" in texts and "c" in texts and "a" not in texts


@pytest.mark.parametrize(
    ("value", "words"),
    [(4.2e-7, "0.42 µs"), (0.00123, "1.23 ms"), (0.9996, "1,000 ms"), (9.996, "10.0 s"), (1234.0, "1,234 s")],
)  # fmt: skip
def test_seconds_have_three_digits(value: float, words: str) -> None:
    assert seconds(value) == words
