"""The picture of interests over time: bands that lie one on the other and fill what they say."""

from __future__ import annotations

import re
from typing import Any

from app.interest_plot import HEIGHT, WIDTH, interest_plot


def over_time(**changed: Any) -> dict[str, Any]:
    return {
        "at": [0.0, 86_400.0, 4 * 86_400.0],
        "interests": [{"tags": ["cooking", "bread"], "mass": [1.0, 2.0, 1.0]}, {"tags": [], "mass": [0.0, 0.0, 1.0]}],
        "other": [0.0, 0.0, 0.0],
    } | changed


def edge(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]


def test_bands_lie_on_each_other_and_reach_the_top_where_they_are_most() -> None:
    plot = interest_plot(over_time())
    assert plot is not None
    first, second = plot["bands"]
    assert (first["name"], second["name"]) == ("cooking, bread", "untagged")
    assert edge(first["path"])[:3] == [(0.0, HEIGHT / 2), (WIDTH / 4, 0.0), (WIDTH, HEIGHT / 2)]
    assert edge(second["path"])[3:] == edge(first["path"])[:3][::-1]
    assert edge(second["path"])[2] == (WIDTH, 0.0)
    assert (first["first"], first["most"], first["now"]) == (1.0, 2.0, 1.0)
    assert [tick["text"] for tick in plot["ticks"]] == ["1970-01-01", "1970-01-03", "1970-01-05"]


def test_nothing_of_a_tag_gets_into_a_path() -> None:
    hostile = [{"tags": ['"/><script>alert(1)</script>'], "mass": [1.0, 1.0, 1.0]}]
    plot = interest_plot(over_time(interests=hostile))
    assert plot is not None
    assert set(plot["bands"][0]["path"]) <= set("MLZ 0123456789.")


def test_one_moment_is_level_and_nothing_liked_is_no_picture() -> None:
    plot = interest_plot(over_time(at=[5.0, 5.0, 5.0], interests=[{"tags": ["a"], "mass": [1.0, 1.0, 1.0]}]))
    assert plot is not None
    assert edge(plot["bands"][0]["path"])[0][0] == 0.0
    assert edge(plot["bands"][0]["path"])[2][0] == WIDTH
    assert interest_plot(over_time(interests=[])) is None
    assert interest_plot({"at": [], "interests": [], "other": []}) is None
