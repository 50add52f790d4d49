"""Plots as SVG, drawn on the server: horizontal bars with intervals, and lines over an axis.

They carry no colour and no size of their own but a viewBox: the page's sheet colours their classes, so that they follow
light and dark, and they are as wide as a phone. Everything that is named in them is escaped; to a screen reader each is
one picture with a sentence, and the table beside it has the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

# In units of the viewBox, which are CSS pixels on a phone 360 wide.
WIDTH = 340.0
BAR_ROW = 34.0
BAR_HEIGHT = 10.0
LINES_HEIGHT = 230.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 12.0, 40.0
MOST_TICKS = 5
LETTER = 6.2


@dataclass(frozen=True)
class Bar:
    """One bar: what it stands for, its value, its interval if there is one, and how the value reads. `strong`: the one
    that the plot is about."""

    label: str
    value: float
    shown: str
    low: float | None = None
    high: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Line:
    """Points (x, y), in order of x."""

    label: str
    points: tuple[tuple[float, float], ...]


def bars(sentence: str, rows: Sequence[Bar]) -> Markup:
    """Bars from zero, one under another, all values 0 or above; nothing for no rows."""
    if not rows:
        return Markup("")
    most = max((row.value if row.high is None else row.high) for row in rows) or 1.0
    parts = [_opened(sentence, len(rows) * BAR_ROW)]
    for number, row in enumerate(rows):
        top = number * BAR_ROW
        middle = top + 19 + BAR_HEIGHT / 2
        parts.append(
            Markup('<text class="label" x="0" y="{:.0f}">{}</text>').format(top + 13, _cut(row.label, row.shown))
        )
        parts.append(
            Markup('<text class="value" x="{:.0f}" y="{:.0f}" text-anchor="end">{}</text>').format(
                WIDTH, top + 13, row.shown
            )
        )
        parts.append(
            Markup('<rect class="{}" x="0" y="{:.1f}" width="{:.1f}" height="{:.0f}" rx="2"/>').format(
                "stripe strong" if row.strong else "stripe", top + 19, max(1.0, WIDTH * row.value / most), BAR_HEIGHT
            )
        )
        if row.low is not None and row.high is not None:
            low, high = (WIDTH * max(0.0, end) / most for end in (row.low, row.high))
            path = f"M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8"
            parts.append(Markup('<path class="interval" d="{}"/>').format(path))
    return _closed(parts)


def lines(
    sentence: str,
    series: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    logarithmic: bool = False,
    from_zero: bool = True,
) -> Markup:
    """Lines over one axis, told apart by colour and by their dashes; with `logarithmic` x goes by powers of ten.
    Nothing without points."""
    points = [point for line in series for point in line.points]
    if not points:
        return Markup("")
    across = [_place(x, logarithmic) for x, _ in points]
    left, right = min(across), max(across)
    heights = [y for _, y in points]
    y_ticks = ticks(min(0.0, *heights) if from_zero else min(heights), max(heights))
    low, high = y_ticks[0], max(y_ticks[-1], *heights)
    legend = _legend([line.label for line in series]) if len(series) > 1 else []
    top = TOP + 16 * (max((row for row, _, _ in legend), default=-1) + 1)
    height = LINES_HEIGHT + top - TOP

    def at(x: float, y: float) -> tuple[float, float]:
        share = (_place(x, logarithmic) - left) / ((right - left) or 1.0)
        rise = (y - low) / ((high - low) or 1.0)
        return LEFT + share * (WIDTH - LEFT - RIGHT), height - BOTTOM - rise * (height - BOTTOM - top)

    parts = [_opened(sentence, height)]
    for y in y_ticks:
        _, place = at(points[0][0], y)
        parts.append(Markup('<path class="grid" d="M{:.0f} {:.1f}H{:.0f}"/>').format(LEFT, place, WIDTH - RIGHT))
        parts.append(_text(LEFT - 5, place + 4, number(y), "end", "tick"))
    for x in _x_ticks(left, right, logarithmic):
        place, _ = at(x, low)
        parts.append(_text(place, height - BOTTOM + 15, number(x), "middle", "tick"))
    parts.append(_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, height - 6, x_label, "middle", "axis"))
    parts.append(_text(0, top - 2 if not legend else TOP - 2, y_label, "start", "axis"))
    for index, line in enumerate(series):
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line.points))
        parts.append(Markup('<polyline class="line line-{}" points="{}"/>').format(index % 4, drawn))
    for (row, place, label), index in zip(legend, range(len(legend)), strict=True):
        y = TOP + 14 + 16 * row
        parts.append(
            Markup('<path class="line line-{}" d="M{:.0f} {:.0f}h18"/>').format(index % 4, LEFT + place, y - 4)
        )
        parts.append(_text(LEFT + place + 23, y, label, "start", "label"))
    return _closed(parts)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`, no more than six of them."""
    # Ends that floating point hardly tells apart are one value.
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-100):
        high = low + (abs(low) if abs(low) > 1e-100 else 1.0)
    rough = (high - low) / MOST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * 0.999999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: float) -> str:
    """A number as a tick reads: 10,000, 1M, 0.25."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6g}"


def _x_ticks(left: float, right: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        return [10.0**power for power in range(math.ceil(left - 1e-9), math.floor(right + 1e-9) + 1)]
    return [tick for tick in ticks(left, right) if left - 1e-9 <= tick <= right + 1e-9]


def _place(x: float, logarithmic: bool) -> float:
    return math.log10(x) if logarithmic else x


def _cut(label: str, shown: str) -> str:
    """The label as long as it fits beside the value."""
    most = int(WIDTH / LETTER) - len(shown) - 2
    return label if len(label) <= most else label[: most - 1] + "…"


def _legend(labels: Sequence[str]) -> list[tuple[int, float, str]]:
    """Row, place across, and text of each entry."""
    found, row, place = [], 0, 0.0
    for label in labels:
        wide = 34 + len(label) * LETTER
        if place and LEFT + place + wide > WIDTH:
            row, place = row + 1, 0.0
        found.append((row, place, label))
        place += wide
    return found


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, text)


def _opened(sentence: str, height: float) -> Markup:
    return Markup('<svg class="plot" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">').format(
        WIDTH, height, sentence
    )


def _closed(parts: Sequence[Markup]) -> Markup:
    return Markup("").join([*parts, Markup("</svg>")])
