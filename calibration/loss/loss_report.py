"""The loss as a page: tables, plots and the slices that suffer most, in one HTML file."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from edge_medgemma.calibration.loss.quantization_error import Loss
from edge_medgemma.calibration.record import FP16_PEAK, Calibration
from edge_medgemma.runtime.files import write_atomically

WORST_SLICES = 6
PICTURE_PIXELS = 224

COLOURS = ("#1f5fa8", "#c4541b", "#2e7d4f", "#7a4aa0", "#8a6d1a")
PLOT_WIDTH, PLOT_HEIGHT = 640, 200


@dataclass(frozen=True, slots=True)
class Measured:
    """One engine beside the float one."""

    name: str
    bytes: int
    loss: Loss


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot."""

    name: str
    colour: str
    points: str
    """`x,y x,y …` in the plot's own pixels"""


@dataclass(frozen=True, slots=True)
class Plot:
    """A line plot over layers."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]
    """Height in pixels and label"""
    last_layer: int


def write_report(path: Path, calibration: Calibration, engines: Sequence[Measured]) -> None:
    """Write the page; it loads nothing from anywhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("loss_report.html").render(
        calibration=calibration,
        engines=engines,
        plots=_plots(calibration, engines),
        ranges=_ranges(calibration),
        worst=[_worst_slices(calibration, one) for one in engines],
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
        fp16_peak=FP16_PEAK,
    )
    write_atomically(path, page.encode())


def table(calibration: Calibration, engines: Sequence[Measured]) -> str:
    """The summary as text for the terminal."""
    slices = calibration.slices
    counts = (
        f"{slices.calibrated} slices of {slices.series} series in {slices.scans} scans, "
        f"{slices.held_out} held out; residual peak {calibration.residual_peak:.4g}, "
        f"fp16 scale 1/{calibration.residual_scale:g}"
    )
    lines = [counts, *(f"warning: {warning}" for warning in slices.warnings)]
    if engines:
        names = ("size", "KL nats", "worst", "top-1", "flips", "image cos")
        widths = (9, 9, 9, 6, 6, 9)
        heads = (f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
        lines.append(f"{'engine':<12} {' '.join(heads)}")
    for one in engines:
        loss = one.loss
        lines.append(
            f"{one.name:<12} {one.bytes / 1e6:>7.1f}MB {loss.kl_nats:>9.2e} "
            f"{loss.largest_kl_nats:>9.2e} {loss.top1_agreement:>6.1%} {loss.flags_flipped:>6.1%} "
            f"{loss.image_cosine:>9.6f}"
        )
    return "\n".join(lines)


def _plots(calibration: Calibration, engines: Sequence[Measured]) -> list[Plot]:
    plots = []
    for part in ("vision", "decoder"):
        values = {
            one.name: [layer.sqnr_db for layer in one.loss.layers if layer.part == part]
            for one in engines
        }
        if any(values.values()):
            plots.append(_plot(f"Residual stream of the {part}, by layer", "SQNR, dB", values))
    peaks = _stream_peaks(calibration)
    plots.append(
        _plot(
            "Largest magnitude in the decoder's residual stream, by layer",
            "log2",
            {
                "peak": [math.log2(max(peak, 1e-6)) for peak in peaks],
                "float16 limit": [16.0] * len(peaks),
            },
        )
    )
    return plots


def _stream_peaks(calibration: Calibration) -> list[float]:
    found = {
        int(name.split(".")[2]): peak
        for name, peak in calibration.peaks.items()
        if name.startswith("text.layers.") and name.endswith(".mlp_residual")
    }
    return [found[layer] for layer in sorted(found)]


def _plot(title: str, unit: str, values: dict[str, list[float]]) -> Plot:
    every = [v for line in values.values() for v in line] or [0.0]
    low, high = math.floor(min(every)), math.ceil(max(every))
    high = max(high, low + 1)
    count = max(len(line) for line in values.values())

    def height(value: float) -> float:
        return round(PLOT_HEIGHT * (1 - (value - low) / (high - low)), 1)

    def points(line: list[float]) -> str:
        step = PLOT_WIDTH / max(count - 1, 1)
        return " ".join(f"{i * step:.1f},{height(v)}" for i, v in enumerate(line))

    lines = tuple(
        Line(name, COLOURS[i % len(COLOURS)], points(line))
        for i, (name, line) in enumerate(values.items())
    )
    ticks = tuple((height(v), f"{v:g}") for v in np.linspace(low, high, 5).tolist())
    return Plot(title, unit, lines, ticks, count - 1)


def _ranges(calibration: Calibration) -> list[dict[str, object]]:
    """Linear layers of the vision tower, worst first."""
    rows: list[dict[str, object]] = [
        {
            "name": name.removeprefix("vision.encoder."),
            "limit": one.limit,
            "method": one.method,
            "exponent": one.exponent,
            "sqnr_db": _decibel(one.error),
            "plain_db": _decibel(one.plain_error),
        }
        for name, one in sorted(calibration.vision.items(), key=lambda item: -item[1].error)
    ]
    return rows


def _decibel(error: float) -> float:
    return -10 * math.log10(max(error, 1e-20))


def _worst_slices(calibration: Calibration, one: Measured) -> list[dict[str, object]]:
    slices = calibration.held_out()
    order = np.argsort(one.loss.slice_cosine)[:WORST_SLICES]
    return [
        {
            "picture": _picture(slices[i].pixels),
            "stratum": " · ".join(slices[i].stratum),
            "cosine": one.loss.slice_cosine[i],
            "kl_nats": one.loss.slice_kl_nats[i],
        }
        for i in order.tolist()
    ]


def _picture(pixels: np.ndarray) -> str:
    """A PNG as a data URL."""
    image = Image.fromarray(pixels)
    image.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
