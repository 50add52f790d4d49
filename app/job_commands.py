"""`reelsense jobs`: what runs once, as a whole, on a worker: training so far."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

jobs = typer.Typer(help="Batch jobs, such as training a ranker: list, show, cancel.", invoke_without_command=True)

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Directory of this installation.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
JobId = Annotated[str, typer.Argument(help="A job's id, or the beginning of it.", metavar="JOB")]


@jobs.callback()
def ls(context: typer.Context, data: Data = None, as_json: Json = False) -> None:
    """Every job, the latest first, and how far it is."""
    from app.cli import answer
    from store.batch_jobs import BatchJobs

    if context.invoked_subcommand is None:
        answer(
            as_json,
            data,
            lambda reelsense: {"jobs": [job.model_dump() for job in BatchJobs(reelsense.catalogue).jobs()]},
            _show_all,
        )


@jobs.command()
def show(job: JobId, data: Data = None, as_json: Json = False) -> None:
    """One job: what was asked, how far it is, what came of it."""
    from app.cli import answer
    from store.batch_jobs import BatchJobs

    answer(as_json, data, lambda reelsense: BatchJobs(reelsense.catalogue).job(job).model_dump(), _show_one)


@jobs.command()
def cancel(job: JobId, data: Data = None, as_json: Json = False) -> None:
    """End a job for good; what runs stops at its next step, and its checkpoint stays."""
    from app.cli import answer
    from store.batch_jobs import BatchJobs

    answer(as_json, data, lambda reelsense: BatchJobs(reelsense.catalogue).cancel(job).model_dump(), _show_one)


def show_submitted(document: dict[str, Any]) -> None:
    """Where to look."""
    typer.echo(f"{document['id']} is queued; `reelsense jobs show {document['id']}` tells how far it is.")


def _show_one(document: dict[str, Any]) -> None:
    _show_all({"jobs": [document]})
    for name in ("request", "result"):
        for key, value in document[name].items():
            typer.echo(f"  {key}: {value}")


def _show_all(document: dict[str, Any]) -> None:
    from app.tables import console, table

    rows = [
        (
            job["id"],
            f"{job['kind']} {job['request'].get('model', '')}",
            job["state"],
            _how_far(job),
            datetime.fromtimestamp(job["created_at"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
            job["error_code"] or job["result"].get("ranker", ""),
        )
        for job in document["jobs"]
    ]
    console().print(table("Jobs", ("job", "what", "state", "progress", "asked at", "came of it"), rows))


def _how_far(job: dict[str, Any]) -> str:
    said = job["progress"]
    if not said:
        return ""
    judged = "" if said.get("judged") is None else f", NDCG@10 {said['judged']:.4f}"
    return f"{said['done']}/{said['most']}{judged}"
