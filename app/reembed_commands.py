"""`reelsense reembed ...`: re-embedding jobs on the command line (docs/reembedding.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.queue_commands import administer

if TYPE_CHECKING:
    from app.administration import Administrator

reembed = typer.Typer(help="Read the whole catalogue anew by other models, and switch to it.", no_args_is_help=True)

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Directory of this installation.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
JobId = Annotated[str, typer.Argument(help="A job's id, or the beginning of it.", metavar="JOB")]
Partial = Annotated[
    bool, typer.Option("--partial", help="Though some videos are absent until the sweep has made them.")
]


@reembed.command()
def start(
    stage: Annotated[
        list[str] | None, typer.Option("--stage", help="A stage that is to be made anew (and what hangs on it).")
    ] = None,
    model_set: Annotated[
        str | None, typer.Option("--model-set", help="Take the encoders of this set; with --stage, its alone.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting, such as encoders.vision=X."),
    ] = None,
    where: Annotated[str, typer.Option(help="Only these videos: \"uploaded_at > 2026-01-01 and region = 'DE'\".")] = "",
    rate: Annotated[float | None, typer.Option(help="Most videos a second.", show_default=False)] = None,
    concurrency: Annotated[int | None, typer.Option(help="Most videos under way.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only plan: what would run, and how long.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Plan a re-embedding and start it, beside what is served and behind uploads."""
    from app import reembed_tables, reembedding
    from store.overrides import parsed
    from workers.reembedding import Request

    def ask(admin: Administrator) -> dict[str, Any]:
        request = Request(tuple(stage or ()), model_set, parsed(settings or []), where, rate, concurrency)
        return reembedding.start(admin, request, dry_run=dry_run)

    administer(as_json, data, ask, reembed_tables.show_plan)


@reembed.command("ls")
def ls(data: Data = None, as_json: Json = False) -> None:
    """Every job, and how far it is."""
    from app import reembed_tables, reembedding

    administer(as_json, data, lambda admin: reembedding.listed(admin.reelsense), reembed_tables.show_jobs)


@reembed.command()
def show(job: JobId, data: Data = None, as_json: Json = False) -> None:
    """One job: progress, rate, remaining time, failures, and what its sample said."""
    from app import reembed_tables, reembedding

    administer(as_json, data, lambda admin: reembedding.shown(admin.reelsense, job), reembed_tables.show_job)


@reembed.command()
def pause(job: JobId, data: Data = None, as_json: Json = False) -> None:
    """Begin nothing new; what runs ends."""
    _change(job, "pause", data, as_json)


@reembed.command()
def resume(job: JobId, data: Data = None, as_json: Json = False) -> None:
    """Go on where it was paused."""
    _change(job, "resume", data, as_json)


@reembed.command()
def cancel(job: JobId, data: Data = None, as_json: Json = False) -> None:
    """End it for good; `reembed gc` deletes what it made."""
    _change(job, "cancel", data, as_json)


def _change(job: str, what: str, data: Path | None, as_json: bool) -> None:
    from app import reembed_tables, reembedding

    administer(as_json, data, lambda admin: reembedding.changed(admin, job, what), reembed_tables.show_change)


@reembed.command()
def switch(job: JobId, partial: Partial = False, data: Data = None, as_json: Json = False) -> None:
    """Serve what a complete job made, for everybody at once."""
    from app import reembed_tables, reembedding

    administer(
        as_json,
        data,
        lambda admin: reembedding.switched(admin, job, partial=partial),
        reembed_tables.show_change,
    )


@reembed.command()
def rollback(
    job: Annotated[str | None, typer.Argument(help="The job that was switched to; default: the last.")] = None,
    partial: Partial = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Serve again what was served before the last switch."""
    from app import reembed_tables, reembedding

    administer(
        as_json,
        data,
        lambda admin: reembedding.rolled_back(admin, job, partial=partial),
        reembed_tables.show_change,
    )


@reembed.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Delete artifacts of versions that nobody needs: not served, not coming, not to be rolled back to."""
    from app import reembed_tables, reembedding

    administer(as_json, data, lambda admin: reembedding.collected(admin, dry_run=dry_run), reembed_tables.show_gc)
