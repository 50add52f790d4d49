"""`reelsense ranker`: what the ranker is after: weights, diversity, rules and safety, from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

ranker = typer.Typer(
    help="The ranker's weights and rules (docs/feed.md), and its trained models (docs/training-rankers.md).",
    no_args_is_help=True,
)

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Directory of this installation.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]


@ranker.command("show")
def show(data: Data = None, as_json: Json = False) -> None:
    """What is in force, as a file to begin from, and what is wrong with the file as it stands, if anything."""
    from app.cli import answer

    answer(as_json, data, lambda reelsense: shown(reelsense.settings.data), _print)


@ranker.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="A file that would be the ranker's.")],
    as_json: Json = False,
) -> None:
    """Try a file without taking it: fails with `ranker.invalid`, naming the field, when it makes no sense."""
    from app.cli import print_json, reported

    with reported(as_json):
        from ranker.objectives import read, render

        ranking = read(file)
        document = {"file": str(file), "ranking": ranking.model_dump(mode="json")}
        print_json(document) if as_json else typer.echo(render(ranking), nl=False)


@ranker.command("models")
def models(data: Data = None, as_json: Json = False) -> None:
    """The trained rankers, newest first, and which of them is served."""
    from app.cli import answer
    from app.ranker_models import listed
    from app.ranker_tables import show_models

    answer(as_json, data, listed, show_models)


@ranker.command("promote")
def promote(
    model: Annotated[
        str, typer.Argument(help="NAME/VERSION, its beginning, or NAME for the newest.", metavar="RANKER")
    ],
    margin: Annotated[float, typer.Option(help="By how much more NDCG@10 it has to be better.")] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Serve it though it is not better; its card says so.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Serve a trained ranker, if it is better than what is served on what was held back from it."""
    from app import ranker_models
    from app.cli import answer
    from app.ranker_tables import show_promotion

    answer(
        as_json,
        data,
        lambda reelsense: ranker_models.promote(reelsense, model, margin=margin, force=force),
        show_promotion,
    )


@ranker.command("rollback")
def rollback(data: Data = None, as_json: Json = False) -> None:
    """Serve what was served before the last switch, which may be no trained ranker at all."""
    from app import ranker_models
    from app.cli import answer
    from app.ranker_tables import show_served

    answer(as_json, data, ranker_models.rollback, show_served)


def shown(data: Path) -> dict[str, Any]:
    """The ranking in force, the digest of the file it came from, whether that is the file as it stands (`source`:
    `file`, `last_good` or `defaults`), and the problem of the file as it stands."""
    from app.operations import error_json
    from ranker.objectives import FILE_NAME, RankerFile, render

    path = data / FILE_NAME
    status = RankerFile(path).status()
    return {
        "file": str(path),
        "source": "defaults" if not status.digest else "last_good" if status.problem else "file",
        "digest": status.digest,
        "problem": error_json(status.problem),
        "ranking": status.ranking.model_dump(mode="json"),
        "toml": render(status.ranking),
    }


def _print(document: dict[str, Any]) -> None:
    if document["problem"]:
        said = document["problem"]
        digest = document["digest"]
        what = f"is the last good file ({digest})" if digest else "are the defaults, for no good one was read"
        typer.echo(f"{said['code']}: {said['message']} In force, here and in servers that run, {what}:", err=True)
    typer.echo(document["toml"], nl=False)
