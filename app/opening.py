"""Opening what people would rather look at: a video's page where the application runs, plots in a file where not."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from app.plots import Bar, Line, bars, lines

if TYPE_CHECKING:
    from app.operations import ReelSense

# Curves are sampled at so many moments.
MOMENTS = 120
# The colours that pages give to plots, for a file that has no page around it.
STYLE = Markup("""
:root { color-scheme: light dark; --ink: light-dark(#1a2128, #e8ebee); --quiet: light-dark(#56616c, #a4b0bc);
  --line: light-dark(#d9d7ce, #343d48); --accent: light-dark(#0b6b62, #5fd3c4); --audio: light-dark(#a2470a, #ffad75);
  --vision: light-dark(#2b5fb4, #86b4ff); --text: light-dark(#7a3596, #d8a4f0); }
body { background: light-dark(#f6f5f1, #12151a); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif;
  margin: 2rem auto; max-width: 40rem; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } p { color: var(--quiet); }
.plot { height: auto; width: 100%; } .plot text { fill: var(--ink); font-size: 12px; }
.plot .tick, .plot .axis { fill: var(--quiet); font-size: 11px; } .plot .grid { stroke: var(--line); }
.plot .stripe { fill: var(--line); } .plot .stripe.strong { fill: var(--accent); }
.plot .line { fill: none; stroke-linejoin: round; stroke-width: 2.5; } .plot .line-0 { stroke: var(--vision); }
.plot .line-1 { stroke: var(--audio); stroke-dasharray: 7 4; }
.plot .line-2 { stroke: var(--text); stroke-dasharray: 2 3; }
""")


def open_video(reelsense: ReelSense, document: dict[str, Any]) -> str:
    """Open the page of a video in the browser, or a file of plots about it where no application runs. `document` is
    what `ReelSense.show` gave. Returns the address, which is also told where there is no browser."""
    from app.stack import running

    stack = running(reelsense.settings)
    if stack is not None and stack.api:
        return _opened(f"{stack.api}/videos/{document['id']}")
    return _written(reelsense, document["id"], plots_of(document), document["title"])


def plots_of(document: dict[str, Any]) -> list[Markup]:
    """Where attention went in a video, by modality and over time, and what was seen."""
    drawn = [
        ("Where attention went", bars("Attention by modality", _attention(document))),
        ("Along its time", lines(*_over_time(document), "seconds", "attention")),
        ("What is seen", bars("Confidence of what is seen", _labels(document))),
    ]
    parts = [Markup("<h1>{}</h1><p>{}, {}</p>").format(document["title"], document["id"], document["state"])]
    parts += [_headed(plot) for plot in drawn if plot[1]]
    return parts if len(parts) > 1 else [*parts, Markup("<p>Nothing is understood of it yet.</p>")]


def _attention(document: dict[str, Any]) -> list[Bar]:
    return [Bar(name, share, f"{share:.0%}", strong=True) for name, share in document["attention"].items()]


def _over_time(document: dict[str, Any]) -> tuple[str, list[Line]]:
    """Attention a second of each modality: a token's weight is spread evenly over its span."""
    length = float(document["duration"] or 0)
    series = []
    for modality in document["attention"]:
        tokens = [token for token in document["tokens"] if token["modality"] == modality]
        points = []
        for place in range(MOMENTS if length > 0 and tokens else 0):
            at = length * (place + 0.5) / MOMENTS
            here = [token for token in tokens if token["start"] <= at < max(token["end"], token["start"] + 1e-6)]
            points.append((at, sum(token["weight"] / max(token["end"] - token["start"], 1e-3) for token in here)))
        series.append(Line(modality, tuple(points)))
    return "Attention a second, by modality", series


def _labels(document: dict[str, Any]) -> list[Bar]:
    seen = [*document["labels"], *document["objects"]][:12]
    return [Bar(label["name"], label["confidence"], f"{label['confidence']:.0%}") for label in seen]


def open_quality(reelsense: ReelSense) -> str:
    """Open the page `/quality` in the browser, or its plots in a file where no application runs; the address."""
    from app.quality import plots
    from app.stack import running

    stack = running(reelsense.settings)
    if stack is not None and stack.api:
        return _opened(f"{stack.api}/quality")
    return _written(reelsense, "quality", [Markup("<h1>Quality</h1>"), *map(_headed, plots())], "Quality")


def _headed(plot: tuple[str, Markup]) -> Markup:
    return Markup("<h2>{}</h2>{}").format(*plot)


def _written(reelsense: ReelSense, name: str, body: Sequence[Markup], title: str) -> str:
    """Write a page of its own beside the data of the installation, and open it."""
    file = reelsense.settings.data / "plots" / f"{name}.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    head = Markup(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{} · ReelSense</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'><style>{}</style></head><body>"
    ).format(title, STYLE)
    file.write_text(Markup("").join([head, *body, Markup("</body></html>\n")]))
    return _opened(file.resolve().as_uri())


def _opened(address: str) -> str:
    webbrowser.open(address)
    return address
