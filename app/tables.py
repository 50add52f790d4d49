"""What the command line shows to people. Every function takes the very document that `--json` prints."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from app.operations import Added

STATE_STYLE = {
    "ready": "green",
    "done": "green",
    "failed": "red",
    "dead": "red",
    "processing": "yellow",
    "running": "yellow",
}
SHORT_ID = 12


def console() -> Console:
    """A console on today's stdout; as wide as a page where there is no terminal to ask."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140, highlight=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table of texts; whatever uploaders wrote is escaped, so that it cannot style or hide anything."""
    result = Table(title=title or None, title_justify="left", header_style="bold", pad_edge=False, box=SIMPLE_HEAD)
    for column in columns:
        result.add_column(column, overflow="fold")
    for row in rows:
        result.add_row(*(cell if isinstance(cell, _Styled) else escape(_text(cell)) for cell in row))
    return result


class _Styled(str):
    """Markup of our own, not to be escaped."""


def _state(name: str) -> _Styled:
    style = STATE_STYLE.get(name)
    return _Styled(f"[{style}]{name}[/]" if style else name)


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    # No control characters: a title must not move the cursor.
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def _bar(share: float, width: int = 20) -> str:
    return "█" * round(share * width)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{seconds % 60:04.1f}"


def show_added(added: Sequence[Added]) -> None:
    """One line a path."""
    rows = [
        (
            item.path,
            (item.id or "-")[:SHORT_ID],
            _state(item.state),
            f"{item.error.code}: {item.error.message}" if item.error else item.outcome,
        )
        for item in added
    ]
    console().print(table("", ("path", "id", "state", ""), rows))
    if any(item.state == "waiting" and item.error is None for item in added):
        console().print(
            "Waiting videos are processed while a stack runs: `reelsense up`, or add with --wait.", markup=False
        )


def show_status(document: dict[str, Any]) -> None:
    """All videos, or the stages of one."""
    rows = document["videos"]
    if not rows:
        console().print("No videos yet. Add some: reelsense add FILE --wait", markup=False)
        return
    console().print(
        table(
            "",
            ("id", "title", "state", "stages done", "error"),
            [
                (
                    row["id"][:SHORT_ID],
                    row["title"],
                    _state(row["state"]),
                    f"{sum(stage['state'] == 'done' for stage in row['stages'].values())}/{len(row['stages'])}",
                    row["error"]["code"] if row["error"] else "",
                )
                for row in rows
            ],
        )
    )
    if len(rows) == 1:
        console().print(_stages(rows[0]["stages"]))
        if rows[0]["error"]:
            console().print(f"{rows[0]['error']['code']}: {rows[0]['error']['message']}", markup=False)


def _stages(stages: dict[str, dict[str, Any]]) -> Table:
    return table(
        "",
        ("stage", "state", "seconds", "version", "attempts"),
        [
            (name, _state(stage["state"]), stage["seconds"], stage["version"], stage["attempts"])
            for name, stage in stages.items()
        ],
    )


def show_video(document: dict[str, Any]) -> None:
    """A whole page about one video."""
    out = console()
    media = document["media"]
    length = _clock(document["duration"]) if document["duration"] else "?"
    facts = [
        f"{document['id']}  {_state(document['state'])}",
        f"{length}, {media['width']}x{media['height']}, {media['video_codec']}, "
        f"sound: {media['audio_codec'] or 'none'}",
    ]
    if document["degraded"]:
        facts.append(f"[yellow]damaged input: {', '.join(document['degraded'])}[/]")
    if document["error"]:
        facts.append(f"[red]{document['error']['code']}[/]: {escape(document['error']['message'])}")
    title = f"[bold]{escape(_text(document['title']))}[/]"
    out.print(Panel("\n".join(facts), title=title, title_align="left", expand=False))
    seen = [*document["labels"], *document["objects"]]
    out.print(
        table(
            "seen",
            ("label", "", "confidence", "at"),
            [
                (
                    label["name"],
                    label["group"] or "",
                    label["confidence"],
                    ", ".join(_clock(second) for second in label["seconds"][:4]),
                )
                for label in seen[:12]
            ],
        )
    )
    _show_look(document, out)
    if audio := document["audio"]:
        music = audio["music"]
        rows = [
            ("tempo (beats a minute)", audio["tempo"]),
            ("key", audio["key"]),
            ("beat", audio["beat_strength"]),
            ("loudness (LUFS)", audio["loudness"]),
            ("speech", audio["speech_share"]),
            ("music", music["share"]),
            ("type", music["type"]),
            ("mood", music["mood"]),
            ("speakers", document["speakers"]["count"]),
        ]
        out.print(table("heard", ("", ""), rows) if audio["present"] else "no sound track")
    for track in document["captions"]:
        out.print(
            table(
                f"captions ({track['origin']}, {track['language'] or 'language not stated'})",
                ("at", "text"),
                [(_clock(line["start"]), line["text"]) for line in track["segments"][:6]],
            )
        )
    transcript = document["transcript"]
    if transcript["segments"]:
        out.print(
            table(
                f"said ({transcript['language']})",
                ("at", "text"),
                [(_clock(line["start"]), line["text"]) for line in transcript["segments"][:8]],
            )
        )
    if document["screen_text"]:
        lines = [(_clock(phrase["start"]), phrase["text"]) for phrase in document["screen_text"][:8]]
        out.print(table("written in the picture", ("at", "text"), lines))
    if document["keywords"]:
        out.print("keywords: " + escape(_text(", ".join(document["keywords"]))))
    if document["topics"]:
        shares = [f"{topic['name']} ({topic['share']:.0%})" for topic in document["topics"][:3]]
        out.print("topics: " + escape(_text("; ".join(shares))))
    out.print(
        table(
            "attention",
            ("modality", "weight", ""),
            [(name, weight, _bar(weight)) for name, weight in document["attention"].items()],
        )
    )
    out.print(_stages(document["stages"]))


def _show_look(document: dict[str, Any], out: Console) -> None:
    """Colours, shots and faces, a line each."""
    if document["colours"]:
        named = [f"[on {colour['hex']}]  [/] {colour['name']} {colour['share']:.0%}" for colour in document["colours"]]
        out.print("colours: " + "  ".join(named))
    if look := document["appearance"]:
        out.print(
            f"light {look['brightness']:.2f}, contrast {look['contrast']:.2f}, sharpness {look['sharpness']:.2f}, "
            f"motion {_text(document['motion'])}; {len(document['shots'])} shots, {_text(document['cut_rate'])} cuts a "
            f"minute; {document['faces']['count']} faces at most"
        )


def show_similar(document: dict[str, Any]) -> None:
    """Neighbours."""
    console().print(_ranked(document["items"]))


def _ranked(items: list[dict[str, Any]]) -> Table:
    def terms(item: dict[str, Any]) -> str:
        return ", ".join(f"{name} {value:+.3f}" for name, value in item.get("terms", {}).items() if value)

    return table(
        "",
        ("score", "id", "title", "made of"),
        [(item["score"], item["video"][:SHORT_ID], item["title"], terms(item)) for item in items],
    )


def show_search(document: dict[str, Any]) -> None:
    """Hits, with the words or sights that matched."""
    rows = []
    for item in document["items"]:
        match = item.get("match") or {}
        where = f"{match['source']} at {_clock(match['start'])}: {match['text']}" if match else ""
        rows.append((item["score"], item["video"][:SHORT_ID], item["title"], where[:120]))
    console().print(table("", ("score", "id", "title", "matched"), rows))


def show_duplicates(document: dict[str, Any]) -> None:
    """Groups of videos that look alike."""
    out = console()
    if not document["groups"]:
        out.print("No two videos show nearly the same pictures.")
    for number, group in enumerate(document["groups"], start=1):
        best = max(pair["similarity"] for pair in group["pairs"])
        rows = [(video["id"][:SHORT_ID], video["title"]) for video in group["videos"]]
        out.print(table(f"group {number}, similarity up to {best:.2f}", ("id", "title"), rows))


def show_topics(document: dict[str, Any]) -> None:
    """The topics that were learnt."""
    rows = [(topic["number"], ", ".join(topic["words"])) for topic in document["topics"]]
    console().print(table(f"{len(rows)} topics of {document['videos']} videos", ("", "topic"), rows))


@contextlib.contextmanager
def training_progress() -> Iterator[Callable[[Any], None]]:
    """A live bar of a training run on stderr, with its losses; a line now and then where that is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=None)

        def update(progress: Any) -> None:
            best = "" if progress.best is None else f", held out {progress.held_out:.3f} (best {progress.best:.3f})"
            said = f"loss {sum(progress.loss.values()):.3f}{best}" if progress.loss else "training"
            bar.update(task, completed=progress.step, total=progress.steps, description=said)

        yield update


def show_fusion(document: dict[str, Any]) -> None:
    """What was trained."""
    card = document["card"]
    if "people" in card:
        first, best = card["history"][0]["judged"], max(look["judged"] for look in card["history"])
        of = f"what {card['people']} people finished, Recall@10 of new videos {first:.3f} before, {best:.3f} after"
    else:
        of = (
            f"{card['engaged_pairs']} pairs finished together, held-out loss {card['held_out_loss_before']:.3f} before,"
        )
        of += f" {card['held_out_loss']:.3f} after"
    console().print(f"{document['model']}: trained on {card['videos']} videos and {of}", markup=False)
    console().print("It is served when every video is fused anew; `reelsense reconcile --wait` sees to that.")


def show_export(document: dict[str, Any]) -> None:
    """What was written."""
    console().print(f"{document['videos']} videos: {', '.join(document['files'])}", markup=False)


def show_event(document: dict[str, Any]) -> None:
    """One line."""
    event = document["event"]
    known = "" if document["new"] else " (known already)"
    if document["set_aside"] is not None:
        known = f" (set aside, {document['set_aside']['reason']}: {document['set_aside']['detail']})"
    console().print(f"recorded: {event['user']} {event['kind']} {event['video'][:SHORT_ID]}{known}", markup=False)


def show_feed(document: dict[str, Any]) -> None:
    """The feed with its reasons."""
    out = console()
    if not document["items"]:
        out.print("Nothing left to show: no videos are published, or all have been seen.")
    for place, item in enumerate(document["items"], start=1):
        out.print(
            f"[bold]{place}. {escape(_text(item['title']))}[/]  {item['video'][:SHORT_ID]}  score {item['score']:.3f}"
        )
        for reason in item["reasons"]:
            out.print(f"   · {escape(_text(reason['text']))}")
        for rule in item["rules"]:
            out.print(f"   ↕ {escape(_text(rule['text']))}")
        made = ", ".join(f"{name} {value:+.3f}" for name, value in item["terms"].items() if value)
        out.print(f"   [dim]= {escape(made)}[/]")


def show_reconcile(document: dict[str, Any]) -> None:
    """What the sweep did."""
    console().print(
        f"{document['videos']} videos: {len(document['sent'])} stages sent, "
        f"{document['repaired']} publications repaired, "
        f"{len(document['discarded'])} damaged artifacts discarded, "
        f"{len(document['given_up'])} set aside"
    )


def show_models(document: dict[str, Any]) -> None:
    """The catalogue of models."""
    console().print(
        table(
            "",
            ("model", "modality", "dim", "installed", "package", "sha256", "licence"),
            [
                (
                    row["name"],
                    row["modality"],
                    row["dim"],
                    "yes" if row["installed"] else "NO",
                    row["package"],
                    (row["digest"] or "")[:SHORT_ID],
                    row["licence"],
                )
                for row in document["models"]
            ],
        )
    )


def show_doctor(document: dict[str, Any]) -> None:
    """What is well and what is not, with its cure."""
    console().print(
        table(
            "",
            ("", "check", "found", "to mend it"),
            [
                (
                    _Styled(
                        "[green]ok[/]"
                        if check["ok"]
                        else ("[red]missing[/]" if check["needed"] else "[yellow]absent[/]")
                    ),
                    check["name"],
                    check["found"],
                    "" if check["ok"] else check["cure"],
                )
                for check in document["checks"]
            ],
        )
    )


def show_settings(document: dict[str, Any]) -> None:
    """All settings."""
    console().print(
        table(
            "",
            ("setting", "value", "origin", "what it is"),
            [(row["name"], row["value"], row["origin"], row["description"]) for row in document["settings"]],
        )
    )


def show_keys(keys: Sequence[Any]) -> None:
    """All API keys; an ended one says how."""
    console().print(
        table(
            "",
            ("id", "name", "scopes", "created", "last used", "expires", "revoked"),
            [
                (
                    key.id,
                    key.name,
                    " ".join(key.scopes),
                    *map(_day, (key.created_at, key.last_used_at, key.expires_at, key.revoked_at)),
                )
                for key in keys
            ],
        )
    )


def _day(at: float | None) -> str:
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
