"""How interests moved over time, as the shapes of a stacked picture: numbers in, SVG path data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

WIDTH, HEIGHT = 640, 240
DAY = 86_400.0


def interest_plot(over_time: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a template draws of `ranker.interests_over_time.profile_over_time`: for each interest a band of the `path`
    between the interests below it and itself, heaviest at the bottom, `other` on top; None where nothing was liked.

    All are numbers of our own making and plain letters, so that nothing of a viewer gets into a path.
    """
    at: Sequence[float] = over_time["at"]
    named = [(", ".join(one["tags"]) or "untagged", one["mass"]) for one in over_time["interests"]]
    named.append(("everything else", over_time["other"]))
    bands = [(number, name, masses) for number, (name, masses) in enumerate(named) if any(mass > 0 for mass in masses)]
    if len(at) < 2 or not bands:
        return None
    first, last = at[0], at[-1]
    most = max(sum(masses[place] for _, _, masses in bands) for place in range(len(at)))
    across = [WIDTH * (moment - first) / (last - first) if last > first else 0.0 for moment in at]
    if not last > first:
        # All in one moment: a level picture instead of a line without width.
        across = [WIDTH * place / (len(at) - 1) for place in range(len(at))]
    below = [0.0] * len(at)
    shown = []
    for number, name, masses in bands:
        above = [low + mass for low, mass in zip(below, masses, strict=True)]
        edge = [f"{x:.1f} {HEIGHT * (1 - y / most):.1f}" for x, y in zip(across, above, strict=True)]
        back = [f"{x:.1f} {HEIGHT * (1 - y / most):.1f}" for x, y in zip(across, below, strict=True)][::-1]
        shown.append(
            {
                "series": number,
                "name": name,
                "path": f"M{' L'.join(edge)} L{' L'.join(back)} Z",
                "first": masses[0],
                "most": max(masses),
                "now": masses[-1],
            }
        )
        below = above
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "bands": shown,
        "most": most,
        "ticks": [
            {"x": round(WIDTH * share, 1), "text": _date(first + share * (last - first), last - first)}
            for share in (0.0, 0.5, 1.0)
        ],
    }


def _date(at: float, span: float) -> str:
    form = "%Y-%m-%d" if span > 2 * DAY else "%m-%d %H:%M"
    return datetime.fromtimestamp(at, UTC).strftime(form)
