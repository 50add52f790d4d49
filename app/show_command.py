"""`reelsense show`: what was understood of a video, in the terminal or in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from app.operations import ReelSense

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Directory of this installation.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]


def show(
    video: Annotated[str, typer.Argument(help="A video's id, or the beginning of it.")],
    open_it: Annotated[
        bool, typer.Option("--open", help="Open its page in the browser; without a running stack, plots of it.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What was understood of a video."""
    from app.cli import answer
    from app.tables import console, show_video

    def ask(reelsense: ReelSense) -> dict[str, Any]:
        document = reelsense.show(video)
        if open_it:
            from app.opening import open_video

            document["opened"] = open_video(reelsense, document)
        return document

    def shown(document: dict[str, Any]) -> None:
        show_video(document)
        if "opened" in document:
            console().print(f"opened: {document['opened']}", markup=False, soft_wrap=True)

    answer(as_json, data, ask, shown)


def quality(
    open_it: Annotated[bool, typer.Option("--open", help="Open the plots in the browser.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What was measured: models, recall, fusion, speed, reliability; and which command measures it."""
    from app.cli import answer

    def ask(reelsense: ReelSense) -> dict[str, Any]:
        from app import quality as measured

        document = measured.document()
        if open_it:
            from app.opening import open_quality

            document["opened"] = open_quality(reelsense)
        return document

    answer(as_json, data, ask, _show_quality)


def _show_quality(document: dict[str, Any]) -> None:
    from app.tables import console, table

    out = console()
    for part in document["parts"]:
        out.rule(part["title"], align="left")
        if part["trouble"]:
            out.print(part["trouble"], markup=False)
        for shown in part["tables"]:
            head = list(shown["rows"][0]) if shown["rows"] else []
            out.print(table(shown["title"], head, [tuple(row.values()) for row in shown["rows"]]))
    if "opened" in document:
        out.print(f"opened: {document['opened']}", markup=False, soft_wrap=True)
