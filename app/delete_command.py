"""`reelsense videos delete`."""

from __future__ import annotations

from typing import Any

import typer

from app.queue_commands import Data, Json, VideoId, administer


def add_to(videos: typer.Typer) -> None:
    """Add the command to its group."""
    videos.command("delete")(videos_delete)


def videos_delete(video: VideoId, data: Data = None, as_json: Json = False) -> None:
    """Delete a video everywhere: its bytes, words, artifacts, vectors, and all rows but what viewers did."""
    from app.deleting import delete

    administer(as_json, data, lambda admin: delete(admin, video), show_deleted)


def show_deleted(document: dict[str, Any]) -> None:
    """What went."""
    removed = {**document["removed"]["rows"], **document["removed"]["objects"]}
    said = ", ".join(f"{count} {name}" for name, count in removed.items()) or "nothing was left"
    typer.echo(f"{document['video']} is deleted: {said}.")
