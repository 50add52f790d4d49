"""`reelsense learnt`: topic models and fusions that were learnt from the catalogue, and which of them is served."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from app.queue_commands import Data, Json, administer

learnt = typer.Typer(
    help="Topic models and fusions learnt from the catalogue: list, promote, roll back.", no_args_is_help=True
)


class Learnt(StrEnum):
    """Which model."""

    TOPICS = "topics"
    FUSION = "fusion"


Model = Annotated[Learnt, typer.Argument(help="Which model.")]


@learnt.command("ls")
def ls(data: Data = None, as_json: Json = False) -> None:
    """Every version that is kept, and its role: served, next (in the making), previous or kept."""
    from app.learnt_models import versions

    administer(as_json, data, lambda admin: {"learnt": versions(admin.reelsense)}, show_versions)


@learnt.command("promote")
def promote(
    model: Model,
    version: Annotated[str, typer.Argument(help="A version that is kept.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Bring in a kept version: what it makes new is computed, and it is served when all of that is there."""
    from app import learnt_models

    administer(as_json, data, lambda admin: learnt_models.promote(admin, model.value, version), show_choice)


@learnt.command("rollback")
def rollback(model: Model, data: Data = None, as_json: Json = False) -> None:
    """Take back what is in the making; else bring in what was served before."""
    from app import learnt_models

    administer(as_json, data, lambda admin: learnt_models.rollback(admin, model.value), show_choice)


def show_versions(document: dict[str, Any]) -> None:
    """One line a version."""
    from app.tables import console, table

    rows = [
        (name, row["version"], row["role"], str(row["bytes"]))
        for name, found in document["learnt"].items()
        for row in found
    ]
    console().print(table("Learnt models", ("model", "version", "role", "bytes"), rows))


def show_choice(document: dict[str, Any]) -> None:
    """What is served, and what comes."""
    said = f"{document['model']}: served {document['served'] or 'none'}"
    typer.echo(said + (f", next {document['next']}" if document["next"] else ""))
