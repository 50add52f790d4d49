"""Plots drawn on the server: what stands in them is true, well-formed and harmless."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.plots import WIDTH, Bar, Line, bars, lines, number, ticks

FINITE = st.floats(min_value=0, max_value=1e9, allow_nan=False)


def test_bars_are_as_long_as_their_values() -> None:
    drawn = ElementTree.fromstring(bars("both", [Bar("a", 2.0, "2"), Bar("b", 1.0, "1", 0.5, 4.0)]))
    widths = [float(rect.attrib["width"]) for rect in drawn.iter("rect")]
    # The end of the longest interval takes the whole width, so no line leaves the picture.
    assert widths == pytest.approx([WIDTH / 2, WIDTH / 4], abs=0.1)


def test_what_is_named_cannot_leave_its_text() -> None:
    name = '</text><script>alert(1)</script>"'
    for svg in (bars(name, [Bar(name, 1.0, name)]), lines(name, [Line(name, ((0, 1), (1, 2)))] * 2, name, name)):
        assert "<script" not in svg
        assert ElementTree.fromstring(svg).attrib["aria-label"] == name


def test_a_line_goes_through_its_points() -> None:
    svg = lines("s", [Line("l", ((10, 0), (100, 5), (1000, 10)))], "x", "y", logarithmic=True)
    points = next(ElementTree.fromstring(svg).iter("polyline")).attrib["points"].split()
    (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, point.split(","))) for point in points)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y2 < y0


@example(0.0, 5e-324)
@example(5e-324, 1e-323)
@example(1e9, 1e9 + 1e-6)
@given(FINITE, FINITE)
def test_ticks_hold_what_they_are_for(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = ticks(low, high)
    step = found[1] - found[0]
    assert found[0] <= low + step * 1e-6
    assert found[-1] >= high - step * 1e-6
    assert 2 <= len(found) <= 8


def test_nothing_is_drawn_of_nothing() -> None:
    assert bars("none", []) == lines("none", [], "x", "y") == ""


@pytest.mark.parametrize(
    ("value", "read"), [(0.30000000000000004, "0.3"), (10_000, "10,000"), (2.5e6, "2.5M"), (0, "0")]
)
def test_a_tick_reads_as_people_write(value: float, read: str) -> None:
    assert number(value) == read
