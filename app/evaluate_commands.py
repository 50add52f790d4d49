"""`reelsense evaluate`: rankers against what this installation's viewers did next."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Directory of this installation.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]


class SplitName(StrEnum):
    """How acts are held back."""

    GLOBAL_TIME = "global_time"
    LEAVE_LAST_OUT = "leave_last_out"
    RANDOM = "random"


def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model by its name, as often as wanted. Default: the usual ones.", show_default=False),
    ] = None,
    split: Annotated[SplitName, typer.Option(help="How acts are held back.")] = SplitName.GLOBAL_TIME,
    seed: Annotated[int, typer.Option(min=0, help="Of models that draw, and of the random split.")] = 0,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """How good rankers are on this installation's own events: each is trained on a part of them and asked for the rest.

    Nothing is stored or served."""
    import contextlib

    from app import evaluating
    from app.cli import answer

    with contextlib.nullcontext() if as_json else _progress() as told:
        answer(
            as_json,
            data,
            lambda reelsense: evaluating.evaluate(
                reelsense, model or (), split=split.value, seed=seed, on_progress=told
            ),
            show_evaluation,
        )


def show_evaluation(document: dict[str, Any]) -> None:
    """A table of what is right, one of what else lists are worth, one of parts of the viewers."""
    from app.tables import console, table

    rows = {name: row for name, row in document["models"].items() if "error" not in row}
    out = console()
    out.print(
        f"{document['split']}: {document['train']} acts of {document['viewers']} viewers on {document['videos']} "
        f"videos to learn from, {document['valid']} to choose by, {document['test']} to be found; "
        f"{document['viewers_without_training']} viewers are new in what is to be found",
        markup=False,
    )
    right = ("ndcg@10", "recall@10", "precision@10", "hr@10", "mrr@10", "map@10", "ndcg@20", "recall@20")
    out.print(
        table(
            "Right",
            ("model", "NDCG@10 (95 %)", *right[1:], "validation", "CPU s"),
            [
                (
                    name + (" (best by validation)" if name == document["best_by_validation"] else ""),
                    f"{row['ndcg@10']:.4f} ({_figure(row['low'])} to {_figure(row['high'])})",
                    *(_figure(row[key]) for key in right[1:]),
                    _figure(row["validation_ndcg@10"]),
                    f"{row['fit_cpu_seconds']:g}",
                )
                for name, row in rows.items()
            ],
        )
    )
    beyond = list(next(iter(rows.values()))["beyond"])
    values = [(name, *(_figure(row["beyond"][key]) for key in beyond)) for name, row in rows.items()]
    out.print(table("Beyond being right", ("model", *beyond), values))
    parts = list(dict.fromkeys(part for row in rows.values() for part in row["groups"]))
    headers = [f"{part.replace('_', ' ')} ({_viewers(rows, part)})" for part in parts]
    cells = [
        (name, *(_figure(row["groups"].get(part, {}).get("ndcg@10")) for part in parts)) for name, row in rows.items()
    ]
    out.print(table("NDCG@10 of parts of the viewers", ("model", *headers), cells))
    for name, row in rows.items():
        for head, found in row.get("heads", {}).items():
            out.print(
                f"{name}, {head}: AUC {_figure(found['auc'])}, accuracy {_figure(found['accuracy'])}, "
                f"calibration error {_figure(found['ece'])} over {found['n']}",
                markup=False,
            )
    for name, row in document["models"].items():
        if "error" in row:
            out.print(f"{name}: {row['error']['code']}: {row['error']['message']}", markup=False)


def _viewers(rows: dict[str, Any], part: str) -> int:
    return int(next(row["groups"][part]["viewers"] for row in rows.values() if part in row["groups"]))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _progress() -> Any:
    """A bar of models on stderr."""
    import contextlib
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())

    @contextlib.contextmanager
    def shown() -> Iterator[Callable[[int, int, str], None]]:
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("reading events", total=None)
            yield lambda done, most, name: bar.update(task, completed=done, total=most, description=name)

    return shown()
