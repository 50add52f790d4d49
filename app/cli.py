"""The command line. Each command reads its arguments, calls one operation, and prints: tables for people, or with
`--json` exactly one JSON document on stdout. Errors go to stderr (and into the document) with their code."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import queue_commands
from app.dead_commands import dead
from app.evaluate_commands import evaluate
from app.job_commands import jobs
from app.key_commands import key
from app.ranker_commands import ranker
from app.reembed_commands import reembed
from app.show_command import quality, show
from app.watch_command import watch
from store.errors import ReelsenseError
from store.settings import Settings, load_settings

if TYPE_CHECKING:
    from app.operations import ReelSense

app = typer.Typer(
    help="ReelSense understands short videos and the people who watch them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

train = typer.Typer(help="Train what learns from the catalogue.", no_args_is_help=True)
app.add_typer(train, name="train")
app.add_typer(dead, name="dead")
app.add_typer(jobs, name="jobs")
app.add_typer(key, name="key")
app.add_typer(ranker, name="ranker")
queue_commands.add_to(app)
app.add_typer(reembed, name="reembed")
app.command("show")(show)
app.command("quality")(quality)
app.command("watch")(watch)
app.command("evaluate")(evaluate)

Data = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Directory of this installation.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
Count = Annotated[int, typer.Option("-k", help="How many results.")]
VideoId = Annotated[str, typer.Argument(help="A video's id, or the beginning of it.")]
User = Annotated[str, typer.Argument(help="A viewer's id.")]

FAILED, INTERRUPTED = 1, 130


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


@contextlib.contextmanager
def reported(as_json: bool) -> Iterator[None]:
    """Translate an error into one line on stderr, or a JSON document, and exit status 1."""
    try:
        yield
    except ReelsenseError as error:
        if as_json:
            print_json({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
        else:
            hint = f"\n  {error.hint}" if error.hint else ""
            sys.stderr.write(f"{error.code}: {error.message}{hint}\n")
        raise typer.Exit(FAILED) from None


def answer(as_json: bool, data: Path | None, ask: Callable[[Any], dict[str, Any]], show: Callable[[Any], None]) -> None:
    """Run one operation and print what it says."""
    with reported(as_json):
        from app.operations import ReelSense
        from app.stack import connected, running

        settings = load_settings(data=data)
        if not settings.broker and (info := running(settings)) is not None:
            settings = connected(settings, info)
        document = ask(ReelSense(settings))
        print_json(document) if as_json else show(document)


@app.command()
def up(
    data: Data = None,
    port: Annotated[int | None, typer.Option(help="Port of the HTTP API; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="How many worker processes.")] = None,
    as_json: Json = False,
) -> None:
    """Run the embedded stack in the foreground: broker, workers, API. Ctrl-C stops it."""
    with reported(as_json):
        from app.stack import Stack, StackInfo

        settings = load_settings(data=data, port=port, workers=workers)

        def ready(info: StackInfo) -> None:
            if as_json:
                print_json(vars(info))
                sys.stdout.flush()
            else:
                sys.stderr.write(
                    f"ready: {settings.workers} workers on {settings.data}, API at {info.api} (Ctrl-C stops)\n"
                )

        Stack(settings, with_api=True).serve(ready)


@app.command()
def add(
    paths: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.")],
    title: Annotated[str | None, typer.Option(help="Title (of every file given).")] = None,
    description: Annotated[str | None, typer.Option(help="Description.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tags", help="Tags: comma-separated, or given again.")] = None,
    creator: Annotated[str | None, typer.Option(help="Who made it.")] = None,
    region: Annotated[str | None, typer.Option(help="Region: two letters (DE) or three digits.")] = None,
    language: Annotated[str | None, typer.Option(help="Language tag, such as en or pt-BR.")] = None,
    sound: Annotated[str | None, typer.Option(help="The music or sound it is made with, as you call it.")] = None,
    captions: Annotated[
        list[Path] | None, typer.Option(help="Caption file (.srt, .vtt, .ass). Default: those beside the video.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until all are ready; starts the stack if none runs.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait, in seconds.")] = 3600.0,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Add videos: check them, store them, and set their processing off."""
    from app.adding import add_all

    with reported(as_json):
        settings = load_settings(data=data)
        words: dict[str, Any] = {
            "title": title,
            "description": description,
            "tags": [tag for group in tags or [] for tag in group.split(",")],
            "creator": creator,
            "region": region,
            "language": language,
            "sound": sound,
            "captions": captions or [],
        }
        added = add_all(settings, paths, words, wait=wait, timeout_seconds=timeout, quiet=as_json)
    if as_json:
        print_json({"videos": [item.as_json() for item in added]})
    else:
        from app.tables import show_added

        show_added(added)
    if any(item.error is not None for item in added):
        raise typer.Exit(FAILED)


@app.command()
def status(
    video: Annotated[str | None, typer.Argument(help="One video; default: all.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """How far each video is, or one video's stages."""
    from app.tables import show_status

    answer(as_json, data, lambda reelsense: reelsense.status(video), show_status)


@app.command()
def similar(video: VideoId, k: Count = 10, data: Data = None, as_json: Json = False) -> None:
    """The videos most like one."""
    from app.tables import show_similar

    answer(as_json, data, lambda reelsense: reelsense.similar(video, k), show_similar)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="What the video should say or show.")],
    k: Count = 10,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Find videos by what they say and show."""
    from app.tables import show_search

    answer(as_json, data, lambda reelsense: reelsense.search(text, k), show_search)


@app.command()
def duplicates(
    threshold: Annotated[float | None, typer.Option(help="Least similarity, 0 to 1.", show_default=False)] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Videos that show nearly the same pictures: uploads in another size, codec or length."""
    from app.tables import show_duplicates

    answer(as_json, data, lambda reelsense: reelsense.duplicates(threshold), show_duplicates)


@train.command("topics")
def train_topics(
    topics: Annotated[
        int | None, typer.Option(help="How many topics; default: by the size of the catalogue.", show_default=False)
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Learn the topics of the catalogue anew, and give them to every video."""
    from app.tables import show_topics

    answer(as_json, data, lambda reelsense: reelsense.train_topics(topics), show_topics)


@train.command("fusion")
def train_fusion(
    seed: Annotated[int, typer.Option(help="The same seed on the same catalogue is the same run.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Most steps.", show_default=False)] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Train the attention that makes one vector of a video, on this catalogue's own tokens and events."""
    from app.tables import show_fusion, training_progress
    from app.training import leads

    if not leads():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends; the first one says it all
    with contextlib.nullcontext() if as_json or not leads() else training_progress() as on_progress:
        answer(
            as_json,
            data,
            lambda reelsense: reelsense.train_fusion(seed=seed, steps=steps, on_progress=on_progress),
            show_fusion,
        )


@train.command("ranker")
def train_ranker(
    model: Annotated[str, typer.Option("--model", help="Which model; a wrong name lists them.")],
    seed: Annotated[int | None, typer.Option(help="The same seed on the same events is the same run.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the model.")
    ] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Serve it, if it is better than what is served.")] = False,
    job: Annotated[
        bool, typer.Option("--job", help="Let a worker do it; `reelsense jobs` tells how far it is.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Train a ranking model on this installation's events, and keep it as a challenger (docs/training-rankers.md)."""
    from app.ranker_tables import ranker_progress, show_trained
    from app.ranker_training import parsed_settings
    from app.training import leads

    if job:
        from app.job_commands import show_submitted
        from app.ranker_training import submitted

        answer(
            as_json,
            data,
            lambda reelsense: submitted(reelsense, model, seed, parsed_settings(settings or []), promote=promote),
            show_submitted,
        )
        return
    if not leads():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends; the first one says it all

    def ask(reelsense: ReelSense) -> dict[str, Any]:
        given = parsed_settings(settings or [])
        with contextlib.nullcontext() if as_json or not leads() else ranker_progress(model) as on_progress:
            found = reelsense.train_ranker(model, seed=seed, settings=given, on_progress=on_progress)
        if promote and leads():
            from app.ranker_models import promote as ask_to_serve

            found["promotion"] = ask_to_serve(reelsense, found["ranker"])
        return found

    answer(as_json, data, ask, show_trained)


class ExportFormat(StrEnum):
    """How vectors are written."""

    PARQUET = "parquet"
    NPY = "npy"


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write into.")],
    form: Annotated[ExportFormat, typer.Option("--format", help="One table, or arrays.")] = ExportFormat.PARQUET,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Write every video's vectors, by modality and fused, for other tools."""
    from app.tables import show_export

    answer(as_json, data, lambda reelsense: reelsense.export(form.value, folder), show_export)


@app.command()
def event(
    user: User,
    video: VideoId,
    kind: Annotated[
        str, typer.Option(help="view, like, comment, share, repost, follow, favourite, skip, not_interested, report.")
    ],
    watched: Annotated[float | None, typer.Option(help="Seconds watched.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Record what a viewer did with a video."""
    from app.tables import show_event

    answer(as_json, data, lambda reelsense: reelsense.event(user, video, kind, watched), show_event)


@app.command()
def profile(
    user: User,
    points: Annotated[
        int | None, typer.Option("--points", metavar="N", help="And the interests over time, at N moments.")
    ] = None,
    pick: Annotated[
        list[str] | None, typer.Option("--pick", help="First note that the viewer picked a topic, or a video.")
    ] = None,
    unpick: Annotated[list[str] | None, typer.Option("--unpick", help="First take a pick back.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What is known of a viewer: interests, dislikes, habits, history, and what was picked to begin with."""
    from app.picking import change_picks
    from app.profile_tables import show_profile

    def shown(reelsense: Any) -> dict[str, Any]:
        if pick or unpick:
            change_picks(reelsense, user, pick or (), unpick or ())
        document: dict[str, Any] = reelsense.profile(user, points)
        return document

    answer(as_json, data, shown, show_profile)


@app.command()
def recommend(
    user: User,
    k: Count = 10,
    region: Annotated[str, typer.Option(help="Where the viewer is (DE). Default: as the last event says.")] = "",
    language: Annotated[str, typer.Option(help="What the viewer speaks (en). Default: the same.")] = "",
    device: Annotated[str, typer.Option(help="The viewer's device, for one who is new.")] = "",
    pick: Annotated[
        list[str] | None, typer.Option(help="What a new viewer chose: a topic or a video. Repeatable.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """A viewer's feed, with the reasons for each video."""
    from app.tables import show_feed

    request = {"region": region, "language": language, "device": device, "picks": pick or ()}
    answer(as_json, data, lambda reelsense: reelsense.recommend(user, k, **request), show_feed)


@app.command()
def reconcile(
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until nothing is under way; starts the stack if none runs.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every artifact too; a damaged one is made again.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait, in seconds.")] = 3600.0,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Find what is missing and send it: after this no video is forgotten, whatever the broker lost."""
    from app.adding import reconcile_all
    from app.tables import show_reconcile

    with reported(as_json):
        document = reconcile_all(load_settings(data=data), verify=verify, wait=wait, timeout_seconds=timeout)
    print_json(document) if as_json else show_reconcile(document)


@app.command()
def rebuild(data: Data = None, as_json: Json = False) -> None:
    """Make the catalogue anew from object storage alone (docs/backups.md). Nothing is computed again."""
    from app.rebuilding import rebuild as make_anew

    def show_rebuilt(document: dict[str, Any]) -> None:
        sys.stdout.write("".join(f"{name:13} {value}\n" for name, value in document.items() if value))

    answer(as_json, data, make_anew, show_rebuilt)


@app.command()
def models(
    fetch: Annotated[bool, typer.Option("--fetch", help="First fetch from a hub what the settings choose.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Each encoder, its weights, where they came from, digest and licence."""
    from app.tables import show_models
    from encoders import catalogue

    with reported(as_json):
        loaded = load_settings(data=data)
        if fetch:
            catalogue.fetch(loaded)
        document = {"models": catalogue.describe(loaded.cache)}
    print_json(document) if as_json else show_models(document)


@app.command()
def doctor(data: Data = None, as_json: Json = False) -> None:
    """What is missing on this machine, and the command that mends it. Exit status 1 when something is."""
    from app.doctor import examine
    from app.tables import show_doctor

    with reported(as_json):
        checks = examine(load_settings(data=data))
    document = {
        "ok": all(check.ok or not check.needed for check in checks),
        "checks": [vars(check) for check in checks],
    }
    print_json(document) if as_json else show_doctor(document)
    if not document["ok"]:
        raise typer.Exit(FAILED)


@app.command()
def settings(data: Data = None, as_json: Json = False) -> None:
    """Every setting, its value, and where the value came from. Secrets are not shown."""
    from app.tables import show_settings
    from store.settings import origins

    with reported(as_json):
        loaded: Settings = load_settings(data=data)
        rows = origins(loaded, data=data)
    document = {
        "settings": [
            {"name": name, "value": value, "origin": origin, "description": description}
            for name, value, origin, description in rows
        ]
    }
    print_json(document) if as_json else show_settings(document)


def _add_groups() -> None:
    """The groups of commands that have modules of their own; those import this one."""
    from app import event_commands
    from app.incoming_commands import incoming

    event_commands.add_to(app)
    app.add_typer(incoming, name="incoming")


def main() -> None:
    """Entry point of `reelsense`."""
    _add_groups()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has left (`| head`): no more to say, and no traceback about it.
        sys.stderr.close()
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
