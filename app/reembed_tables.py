"""What `reelsense reembed` shows to people. Every function takes the very document that `--json` prints."""

from __future__ import annotations

import time
from typing import Any

from app.tables import console, table


def show_plan(document: dict[str, Any]) -> None:
    """What a job would run, or will."""
    rows = [
        (
            name,
            entry["runs"],
            entry["there"],
            "never measured"
            if entry["seconds"] is None
            else f"{entry['seconds']:.3g} s (median of {entry['measured']})",
        )
        for name, entry in document["stages"].items()
    ]
    out = console()
    if not rows:
        out.print("Nothing would change: every version is the one that is served.")
        return
    title = f"{document['videos']} videos (shards: {document['shards']})"
    out.print(table(title, ("stage", "to run", "there already", "each"), rows))
    out.print(f"unchanged: {', '.join(document['unchanged']) or 'nothing'}")
    hours = document["hours"]
    time_text = "not known: a stage was never measured here" if hours is None else _duration(3600 * hours)
    out.print(f"to read: {_bytes(document['bytes'])}; expected time with {document['workers']} workers: {time_text}")
    if "job" in document:
        out.print(f"started: {document['job']}; follow it with `reelsense reembed show {document['job']}`")
        if not document["broker"]:
            out.print("No stack runs now: the job goes on when one does (`reelsense up`).")


def show_jobs(document: dict[str, Any]) -> None:
    """One line a job."""
    rows = [
        (
            job["job"],
            job["state"],
            f"{job['done']}/{job['videos']}",
            job["failed"],
            _rate(job),
            _remaining(job),
            " ".join(job["stages"]),
            job["where"] or "all",
        )
        for job in document["jobs"]
    ]
    console().print(table("", ("job", "state", "done", "failed", "rate", "remaining", "stages", "videos"), rows))


def show_job(document: dict[str, Any]) -> None:
    """One job in full."""
    show_jobs({"jobs": [document]})
    out = console()
    out.print("set: " + ", ".join(f"{name}={value}" for name, value in document["overrides"].items()), markup=False)
    shards = document["shards"]
    out.print(
        f"shards: {shards['done']} done, {shards['sent']} sent, {shards['waiting']} waiting; "
        f"{document['under_way']} videos under way"
    )
    for name in ("canary", "validation"):
        if numbers := document[name]:
            _show_numbers(name, numbers)
    if document["reason"]:
        out.print(f"{document['reason']['code']}: {document['reason']['message']}", markup=False)
    if document["failures"]:
        rows = [(item["video"][:12], item["stage"], item["code"], item["message"]) for item in document["failures"]]
        out.print(table("failures", ("video", "stage", "code", ""), rows))
    history = [(_clock(entry["at"]), entry["who"], entry["what"]) for entry in document["history"]]
    out.print(table("history (UTC)", ("at", "who", "what"), history))


def _show_numbers(name: str, numbers: dict[str, Any]) -> None:
    rows = []
    parts = {"fused vector": numbers["vector"]} | numbers["modalities"]
    for part, figures in parts.items():
        if figures is not None:
            same = figures.get("same_video") or {}
            rows.append((part, figures["spread"], figures["neighbours"], same.get("served"), same.get("made")))
    title = (
        f"{name}: {numbers['videos']} videos, {numbers['failed']} failed, "
        f"{'all finite' if numbers['finite'] else 'NOT FINITE'}"
    )
    columns = ("", "spread (served: 1)", "neighbours kept (chance: 0)", "same video, served", "same video, made")
    console().print(table(title, columns, rows))


def show_change(document: dict[str, Any]) -> None:
    """What a job is now, and what is served where that has changed."""
    show_jobs({"jobs": [document]})
    if "served" in document:
        overrides = document["served"]["overrides"]
        text = ", ".join(f"{name}={value}" for name, value in overrides.items()) or "the settings alone"
        console().print(f"served from now on: {text}", markup=False)
        if document["census"]["lacking"] or document["census"]["gone"]:
            absent = document["census"]["lacking"] + document["census"]["gone"]
            console().print(f"absent until the sweep has made them: {absent}")


def show_gc(document: dict[str, Any]) -> None:
    """What went, or would go."""
    rows = [
        (entry["stage"], entry["version"], entry["artifacts"], _bytes(entry["bytes"])) for entry in document["versions"]
    ]
    console().print(table("", ("stage", "version", "artifacts", "size"), rows))
    verb = "deleted" if document["deleted"] else "would be deleted"
    console().print(f"{document['artifacts']} artifacts, {_bytes(document['bytes'])}: {verb}")


def _rate(job: dict[str, Any]) -> str:
    return "-" if job["per_second"] is None else f"{job['per_second']:.3g}/s"


def _remaining(job: dict[str, Any]) -> str:
    return "-" if job["remaining_seconds"] is None else _duration(job["remaining_seconds"])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
