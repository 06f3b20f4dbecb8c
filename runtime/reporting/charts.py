"""Charts as SVG text: drawn here, coloured by the page's style sheet, so that they follow its theme."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 44
"""Margins, for tick labels and axis titles."""

BAR_HEIGHT, BAR_GAP = 22, 10
BAR_LABEL_WIDTH = 88

TICKS = 5
LABEL_WIDTH_PER_LETTER = 6.6
"""Width of a letter of the page's 12 px sans-serif, rather too much than too little."""
LABEL_HEIGHT = 13


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind; `style` is the number of a colour, of the page's six."""

    name: str
    points: tuple[tuple[float, float], ...]
    style: int
    has_line: bool = True
    is_dashed: bool = False
    has_points: bool = True
    """Whether each point is marked; never on a dashed line."""
    labels: tuple[str, ...] = ()
    """Beside the points, where there are any."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart of a page, and what it says in words."""

    title: str
    svg: Markup
    legend: tuple[tuple[str, int], ...]
    """Name and number of the colour."""
    caption: str


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its title with the unit, and whether it is logarithmic."""

    title: str
    is_log: bool = False
    end: float | None = None
    """Of a linear axis; None leaves some room beyond the largest value."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One stacked bar: a label, parts in the order of the legend, and what stands behind it."""

    label: str
    parts: tuple[float, ...]
    note: str


def line_chart(series: Sequence[Series], x: Axis, y: Axis) -> str:
    """An SVG element; axes begin at zero unless they are logarithmic."""
    xs = [point[0] for one in series for point in one.points]
    ys = [point[1] for one in series for point in one.points]
    x_scale = _scale(xs, LEFT, WIDTH - RIGHT, x)
    y_scale = _scale(ys, HEIGHT - BOTTOM, TOP, y)
    parts = [*_x_axis(x_scale, x.title), *_y_axis(y_scale, y.title)]
    for one in series:
        parts += _drawn(one, x_scale, y_scale)
    return _svg(WIDTH, HEIGHT, parts, f"{y.title} against {x.title}")


def bar_chart(bars: Sequence[Bar], names: Sequence[str], title: str) -> str:
    """An SVG element of stacked horizontal bars, one colour for each of `names`."""
    height = TOP + len(bars) * (BAR_HEIGHT + BAR_GAP) + BOTTOM
    longest = max(sum(bar.parts) for bar in bars)
    note_width = max(len(bar.note) for bar in bars) * LABEL_WIDTH_PER_LETTER + 8
    scale = _Scale(0.0, longest, BAR_LABEL_WIDTH, WIDTH - RIGHT - note_width, False)
    parts = _x_axis(scale, title, height)
    for row, bar in enumerate(bars):
        top = TOP + row * (BAR_HEIGHT + BAR_GAP)
        middle = top + BAR_HEIGHT / 2 + 4
        parts.append(_text(BAR_LABEL_WIDTH - 8, middle, bar.label, "end"))
        begin = 0.0
        for style, (name, part) in enumerate(zip(names, bar.parts, strict=True)):
            left, right = scale.place(begin), scale.place(begin + part)
            begin += part
            if right - left > 0:
                parts.append(
                    f'<rect class="fill{style}" x="{left:.1f}" y="{top}" '
                    f'width="{right - left:.1f}" height="{BAR_HEIGHT}">'
                    f"<title>{escape(bar.label)}: {escape(name)} {part:.4g}</title></rect>"
                )
        parts.append(_text(scale.place(begin) + 6, middle, bar.note, "start", "soft"))
    return _svg(WIDTH, height, parts, title)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Map of values to pixels."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool

    def place(self, value: float) -> float:
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        if self.is_log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        step = _round_step((self.high - self.low) / TICKS)
        return [i * step for i in range(math.floor(self.high / step * (1 + 1e-9)) + 1)]


def _scale(values: Sequence[float], begin: float, end: float, axis: Axis) -> _Scale:
    if axis.is_log:
        low, high = min(values), max(values)
        return _Scale(
            10 ** math.floor(math.log10(low)),
            10 ** math.ceil(math.log10(high * 1.05)),
            begin,
            end,
            True,
        )
    if axis.end is not None:
        return _Scale(0.0, axis.end, begin, end, False)
    return _Scale(0.0, max(values, default=1.0) * 1.12 or 1.0, begin, end, False)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return min(size * power for size in (1, 2, 5, 10) if size * power >= step * 0.999)


def _x_axis(scale: _Scale, title: str, height: float = HEIGHT) -> list[str]:
    base = height - BOTTOM
    parts = [_line(scale.begin, base, scale.end, base, "axis")]
    for tick in scale.ticks():
        at = scale.place(tick)
        parts += [
            _line(at, base, at, TOP, "grid"),
            _text(at, base + 16, _tick(tick), "middle", "soft"),
        ]
    return [*parts, _text((scale.begin + scale.end) / 2, height - 8, title, "middle", "soft")]


def _y_axis(scale: _Scale, title: str) -> list[str]:
    parts = []
    for tick in scale.ticks():
        at = scale.place(tick)
        parts += [
            _line(LEFT, at, WIDTH - RIGHT, at, "grid"),
            _text(LEFT - 7, at + 4, _tick(tick), "end", "soft"),
        ]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = (
        f'<text class="soft" text-anchor="middle" transform="translate(14 {middle:.0f}) '
        f'rotate(-90)">{escape(title)}</text>'
    )
    return [*parts, turned]


def _drawn(series: Series, x: _Scale, y: _Scale) -> list[str]:
    places = [(x.place(a), y.place(b)) for a, b in series.points]
    parts = []
    if series.has_line and len(places) > 1:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        dash = " dashed" if series.is_dashed else ""
        parts.append(f'<polyline class="line{series.style}{dash}" points="{path}"/>')
    if series.has_points and not series.is_dashed:
        for (a, b), (value, other) in zip(places, series.points, strict=True):
            parts.append(
                f'<circle class="fill{series.style}" cx="{a:.1f}" cy="{b:.1f}" r="4">'
                f"<title>{escape(series.name)}: {value:.4g}, {other:.4g}</title></circle>"
            )
    for (a, b), label in _apart(list(zip(places, series.labels, strict=False))):
        is_right = a + len(label) * LABEL_WIDTH_PER_LETTER + 10 > WIDTH - RIGHT
        x_text, anchor = (a - 8, "end") if is_right else (a + 8, "start")
        parts.append(_text(x_text, b + 4, label, anchor))
    return parts


def _apart(
    labels: Sequence[tuple[tuple[float, float], str]],
) -> list[tuple[tuple[float, float], str]]:
    """Labels that would lie upon one another become one."""
    apart: list[tuple[tuple[float, float], str]] = []
    for (x, y), label in labels:
        for i, ((other_x, other_y), other) in enumerate(apart):
            width = max(len(label), len(other)) * LABEL_WIDTH_PER_LETTER
            if abs(y - other_y) < LABEL_HEIGHT and abs(x - other_x) < width:
                apart[i] = (other_x, other_y), f"{other}, {label}"
                break
        else:
            apart.append(((x, y), label))
    return apart


def _tick(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:g}" if value == 0 or value >= 1e-3 else f"{value:.0e}"


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )
