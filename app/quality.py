"""How good this is, as far as it was measured: the files of `bench/results` as tables and plots.

Each part is made from one file that a command of `bench` wrote, and says which; a part whose file is not there, or does
not read as it should, says that instead. The files come with the package as they come with a checkout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from app import quality_parts
from app.quality_parts import Shown, Table

ROOT = Path(__file__).resolve().parents[1]
# In a checkout; an installed package carries the same files in a folder of its own.
IN_CHECKOUT, IN_PACKAGE = ROOT / "bench" / "results", Path(__file__).parent / "measured"
RESULTS = IN_CHECKOUT if IN_CHECKOUT.is_dir() else IN_PACKAGE
READ_TABLE = ROOT / "docs" / "quality.md"


@dataclass(frozen=True)
class Source:
    """Where a part comes from: its anchor and title, a sentence on what is measured, its file, and the command that
    makes it; `make` turns the file's document into what is shown."""

    name: str
    title: str
    says: str
    file: str
    command: str
    make: Callable[[Mapping[str, Any]], list[Shown]]


@dataclass(frozen=True)
class Part:
    """One part of the page. `trouble`: why there is nothing to show, empty otherwise."""

    source: Source
    shown: list[Shown] = field(default_factory=list)
    measured: str = ""
    trouble: str = ""


SOURCES: tuple[Source, ...] = (
    Source(
        "models",
        "Models that learn from behaviour",
        "Every video is ranked for every viewer; what was seen in training is left out. The line on a bar is an "
        "interval of 95 % over viewers. Settings were chosen on validation, and test was opened once.",
        "learning.json",
        "python -m bench.learning WHEEL",
        quality_parts.learning,
    ),
    Source(
        "recall",
        "Where candidates come from",
        "Each source of candidates alone, and all of them together, by the same rules.",
        "recall.json",
        "python -m bench.recall WHEEL",
        quality_parts.recall,
    ),
    Source(
        "fusion",
        "One vector from three modalities",
        "A clip is looked for by another cut of itself, with all modalities and with some of them missing.",
        "fusion.json",
        "python -m bench.fusion",
        quality_parts.fusion,
    ),
    Source(
        "behaviour",
        "What fusion gains from behaviour",
        "People's next items are ranked by the likeness of content alone.",
        "fusion_behaviour.json",
        "python -m bench.fusion_behaviour",
        quality_parts.behaviour,
    ),
    Source(
        "feeds",
        "How fast a feed is",
        "Whole feeds of 20 as the API makes them, for 100,000 viewers with a million events.",
        "ranker.json",
        "python -m bench.ranker",
        quality_parts.feeds,
    ),
    Source(
        "vectors",
        "Searching vectors",
        "The nearest hundred of a query, against all of them compared.",
        "vector_index.json",
        "python -m bench.vector_index",
        quality_parts.vectors,
    ),
    Source(
        "exploration",
        "How a new video finds its viewers",
        "How often new videos had to be shown until half of them were found; fewer is better.",
        "exploration.json",
        "python -m bench.exploration",
        quality_parts.exploration,
    ),
    Source(
        "chaos",
        "What survives when things die",
        "Real uploads while workers, broker, object store and database are killed at random moments.",
        "chaos.json",
        "python -m bench.chaos",
        quality_parts.chaos,
    ),
    Source(
        "memory",
        "Memory of a worker",
        "One worker, a thousand videos, its children replaced as in production.",
        "worker_memory.json",
        "python -m bench.worker_memory",
        quality_parts.memory,
    ),
    Source(
        "weight",
        "How light these pages are",
        "Bytes over the wire and time to first paint, measured in a real browser over loopback.",
        "page_weight.json",
        "python -m bench.page_weight",
        quality_parts.page_weight,
    ),
)


def parts(results: Path = RESULTS) -> list[Part]:
    """Every part, in the order of the page."""
    return [_part(source, results / source.file) for source in SOURCES]


def _part(source: Source, path: Path) -> Part:
    try:
        document = json.loads(path.read_text())
        shown = source.make(document)
        measured = _measured(document.get("machine", {}))
    except FileNotFoundError:
        return Part(source, trouble=f"bench/results/{source.file} is not here; {source.command} makes it.")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        # What a later or earlier bench wrote must not take the rest of the page away.
        reason = f"{type(error).__name__}: {error}"
        return Part(source, trouble=f"bench/results/{source.file} does not read as this page expects ({reason}).")
    return Part(source, shown, measured)


def _measured(machine: Mapping[str, Any]) -> str:
    if not machine:
        return ""
    return f"Measured {machine['measured']} on {machine['cores']} cores of {machine['processor']}."


def reading(page: Path = READ_TABLE) -> tuple[Table | None, str]:
    """The table of docs/quality.md, how well each modality is read, or None and why it is absent."""
    try:
        rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    except FileNotFoundError:
        return None, "docs/quality.md is not here (a checkout has it); python -m bench.quality makes it."
    cells = [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows]
    if len(cells) < 3 or any(len(row) != len(cells[0]) for row in cells):
        return None, "docs/quality.md holds no table."
    return Table("How well each modality is read", cells[0], cells[2:], numbers=False), ""


def document(results: Path = RESULTS) -> dict[str, Any]:
    """The same as a JSON document, without the plots."""
    return {
        "parts": [
            {
                "name": part.source.name,
                "title": part.source.title,
                "file": f"bench/results/{part.source.file}",
                "command": part.source.command,
                "measured": part.measured,
                "trouble": part.trouble or None,
                "tables": [shown.as_json() for shown in part.shown if isinstance(shown, Table)],
            }
            for part in parts(results)
        ]
    }


def plots(results: Path = RESULTS) -> list[tuple[str, Markup]]:
    """Every plot with what it is about."""
    return [
        (f"{part.source.title}: {shown.title}", shown.svg)
        for part in parts(results)
        for shown in part.shown
        if isinstance(shown, quality_parts.Picture)
    ]
