"""Events over HTTP, under `/api/v1`: one, a batch, those set aside, and forgetting a viewer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from app.access import Access
from app.operations import ReelSense
from ranker.events import Number
from store.picks import MOST_PICKS

K = Annotated[int, Query(ge=1, le=10_000)]
_BATCH = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "array", "items": {"type": "object"}}},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    }
}


class Act(BaseModel):
    """What a viewer did. Unknown fields are refused: a misspelt one must not be lost without a word."""

    model_config = ConfigDict(extra="forbid")
    user: str
    video: str
    kind: str
    watched_seconds: Number | None = Field(None, validation_alias=AliasChoices("watched_seconds", "watched"))
    at: Number | None = None
    id: str | None = None
    loops: int | None = None
    session: str = ""
    device: str = ""
    os: str = ""
    network: str = ""
    region: str = ""
    language: str = ""


class PickChange(BaseModel):
    """What a viewer picked, and what is taken back: topics, or ids of videos."""

    model_config = ConfigDict(extra="forbid")
    pick: list[str] = Field(default_factory=list, max_length=MOST_PICKS)
    unpick: list[str] = Field(default_factory=list, max_length=MOST_PICKS)


def event_routes(reelsense: ReelSense, access: Access) -> APIRouter:
    """The routes over one installation."""
    router = APIRouter(tags=["viewers"])
    viewers = [Depends(access.require("recommend"))]
    admin = [Depends(access.require("admin"))]

    @router.post("/events", status_code=201, dependencies=viewers)
    def event(act: Act) -> dict[str, Any]:
        """Record what a viewer did; `video` may be the beginning of an id."""
        given = act.model_dump()
        named = [given.pop(name) for name in ("user", "video", "kind", "watched_seconds", "at")]
        return reelsense.event(*named, **given)

    @router.post("/events/batch", dependencies=viewers, openapi_extra=_BATCH)
    async def batch(request: Request) -> dict[str, Any]:
        """Record many acts at once: a JSON array, or JSON Lines. Each line has its own result; a bad one costs the
        others nothing."""
        body = await request.body()
        return await run_in_threadpool(_take, reelsense, body)

    @router.get("/events/set-aside", dependencies=admin)
    def set_aside(reason: str | None = None, user: str | None = None, k: K = 20) -> dict[str, Any]:
        """Events that do not count, by reason."""
        from app.event_commands import list_set_aside

        return list_set_aside(reelsense, reason, user, k)

    @router.post("/viewers/{user:path}/picks", dependencies=viewers)
    def picks(user: str, change: PickChange) -> dict[str, Any]:
        """Note what a viewer picked to begin with: it counts in every feed until the viewer's own acts outweigh it."""
        from app.picking import change_picks

        return change_picks(reelsense, user, change.pick, change.unpick)

    @router.delete("/viewers/{user:path}", dependencies=admin)
    def forget(user: str) -> dict[str, Any]:
        """Delete a viewer's events and picks everywhere; the proof."""
        from app.forgetting import forget as forget_viewer

        return forget_viewer(reelsense, user)

    return router


def _take(reelsense: ReelSense, body: bytes) -> dict[str, Any]:
    from app.taking import parse_batch, summed, take_lines

    results = take_lines(reelsense.catalogue, parse_batch(body))
    return {**summed(results), "results": results}
