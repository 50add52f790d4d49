"""The state of a video as server-sent events (WHATWG HTML, section 9.2).

The database is the one truth, so it is asked again and again; all who watch one process share the connections it may
have open. An event's `id` names its content: who comes back with `Last-Event-ID` is not told what it knows, and who
knows the end is answered 204, on which a browser stops coming back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from app.admission import BusyError
from app.operations import ReelSense
from app.stopping import Stopping
from store.artifacts import digest
from store.errors import NotFoundError, ReelsenseError

MOST_STREAMS = 128
LOOK_SECONDS = 0.5
# Proxies cut connections on which nothing comes.
SILENCE_SECONDS = 15.0
ENDS = ("ready", "failed")
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class StatusStreams:
    """The open streams of one process."""

    def __init__(self, reelsense: ReelSense, stopping: Stopping) -> None:
        self.reelsense = reelsense
        self.stopping = stopping
        self._open = 0

    def seen(self, video_id: str) -> dict[str, Any]:
        """What is told of a video: its state, its error, how many of its stages are done, and each stage."""
        row: dict[str, Any] = self.reelsense.status(video_id)["videos"][0]
        stages = {
            name: {key: stage[key] for key in ("state", "seconds", "error")} for name, stage in row["stages"].items()
        }
        done = sum(stage["state"] == "done" for stage in stages.values())
        return {key: row[key] for key in ("id", "title", "state", "error")} | {
            "done": done,
            "of": len(stages),
            "stages": stages,
        }

    async def answer(self, video_id: str, last: str | None) -> Response:
        """The stream. Raises `video.unknown`, `request.too_many_streams`."""
        seen = await run_in_threadpool(self.seen, video_id)
        if last is not None and last == _end_id(seen):
            return Response(status_code=204)
        if self._open >= MOST_STREAMS:
            raise BusyError("request.too_many_streams", f"{MOST_STREAMS} live streams are open.", retry_seconds=5)
        return StreamingResponse(self._events(seen, last), media_type="text/event-stream", headers=dict(HEADERS))

    async def _events(self, seen: dict[str, Any], last: str | None) -> AsyncIterator[str]:
        self._open += 1
        try:
            yield "retry: 2000\n\n"
            silent = 0.0
            while True:
                name = digest(seen)
                if name != last:
                    yield _event("status", name, seen)
                    last, silent = name, 0.0
                if seen["state"] in ENDS:
                    yield _event("end", _end_id(seen), {"id": seen["id"], "state": seen["state"]})
                    return
                if silent >= SILENCE_SECONDS:
                    yield ": still here\n\n"
                    silent = 0.0
                await asyncio.sleep(LOOK_SECONDS)
                silent += LOOK_SECONDS
                if self.stopping.asked.is_set():
                    return
                try:
                    seen = await run_in_threadpool(self.seen, seen["id"])
                except NotFoundError:
                    yield _event("end", "deleted", {"id": seen["id"], "state": "deleted"})
                    return
                except ReelsenseError as error:
                    # The database may be back in a moment: the client is told, and nothing ends.
                    yield _event("trouble", "", {"code": error.code, "message": error.message})
                    last = None
        finally:
            self._open -= 1


def _end_id(seen: dict[str, Any]) -> str:
    return f"end-{digest(seen)}" if seen["state"] in ENDS else ""


def _event(kind: str, name: str, data: dict[str, Any]) -> str:
    # JSON has no line breaks in it, so nothing in a title can begin an event of its own.
    text = json.dumps(data, ensure_ascii=True)
    return f"event: {kind}\n" + (f"id: {name}\n" if name else "") + f"data: {text}\n\n"
