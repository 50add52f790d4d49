"""What the commands of trained rankers print for people."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

from app.tables import console, table
from ranker.models.model import Progress


@contextlib.contextmanager
def ranker_progress(model: str) -> Iterator[Callable[[Progress], None]]:
    """A live bar of a training run on stderr, with its loss and the best it was judged."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    best: list[float] = []
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(model, total=None)

        def update(progress: Progress) -> None:
            if progress.judged is not None:
                best[:] = [max([progress.judged, *best])]
            said = model + ("" if progress.loss is None else f", loss {progress.loss:.4f}")
            said += f", best NDCG@10 {best[0]:.4f}" if best else ""
            bar.update(task, completed=progress.done, total=progress.most, description=said)

        yield update


def show_trained(document: dict[str, Any]) -> None:
    """What was trained, and what came of it."""
    card = document["card"]
    data, judged = card["data"], card["validation"]
    console().print(
        f"{document['ranker']}: trained on {data['learnt_from']} acts of {data['viewers']} viewers on {data['videos']} "
        f"videos in {card['cpu_seconds']:g} CPU s; NDCG@10 {judged['ndcg@10']:.4f} by what {judged['viewers']} viewers "
        "did later",
        markup=False,
    )
    if "promotion" in document:
        show_promotion(document["promotion"])
    else:
        console().print(f"`reelsense ranker promote {document['ranker']}` serves it, if it is better.", markup=False)


def show_models(document: dict[str, Any]) -> None:
    """One line a ranker."""
    rows = [
        (
            row["ranker"],
            row["role"],
            f"{row['validation']['ndcg@10']:.4f}",
            row["validation"]["viewers"],
            row["data"]["acts"],
            row["trained_at"],
            f"{row['forgotten_viewers']} forgotten" if row["forgotten_viewers"] else "",
        )
        for row in document["models"]
    ]
    columns = ("ranker", "role", "NDCG@10", "of viewers", "acts", "trained at", "")
    console().print(table("Trained rankers", columns, rows))


def show_promotion(document: dict[str, Any]) -> None:
    """Who is served now, and by which figures."""
    low, high = document["difference"]["interval95"]
    console().print(
        f"{document['champion']} is served: NDCG@10 {document['score']:.4f}, {document['rival']} "
        f"{document['rival_score']:.4f} (difference {document['difference']['mean']:.4f}, {low:.4f} to {high:.4f})"
        f"{', by force' if document['forced'] else ''}",
        markup=False,
    )


def show_served(document: dict[str, Any]) -> None:
    """Who is served now."""
    console().print(f"{document['champion'] or 'No trained ranker'} is served.", markup=False)
