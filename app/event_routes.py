"""Events over HTTP, under `/api/v1`: one, a batch, those set aside, and forgetting a viewer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from app.access import Access
from app.operations import ReelSense

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


def event_routes(reelsense: ReelSense, access: Access) -> APIRouter:
    """The routes over one installation."""
    router = APIRouter(tags=["viewers"])
    viewers = [Depends(access.require("recommend"))]
    admin = [Depends(access.require("admin"))]

    @router.post("/events", status_code=201, dependencies=viewers)
    def event(
        user: Annotated[str, Body()],
        video: Annotated[str, Body()],
        kind: Annotated[str, Body()],
        watched: Annotated[float | None, Body()] = None,
        at: Annotated[float | None, Body()] = None,
        id: Annotated[str | None, Body()] = None,
        loops: Annotated[int | None, Body()] = None,
        session: Annotated[str, Body()] = "",
        device: Annotated[str, Body()] = "",
        os: Annotated[str, Body()] = "",
        network: Annotated[str, Body()] = "",
        region: Annotated[str, Body()] = "",
        language: Annotated[str, Body()] = "",
    ) -> dict[str, Any]:
        """Record what a viewer did."""
        where = {
            "id": id, "loops": loops, "session": session, "device": device, "os": os, "network": network,
            "region": region, "language": language,
        }  # fmt: skip
        return reelsense.event(user, video, kind, watched, at, **where)

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

    @router.delete("/viewers/{user:path}", dependencies=admin)
    def forget(user: str) -> dict[str, Any]:
        """Delete a viewer's events everywhere; the proof."""
        from app.forgetting import forget as forget_viewer

        return forget_viewer(reelsense, user)

    return router


def _take(reelsense: ReelSense, body: bytes) -> dict[str, Any]:
    from app.taking import parse_batch, summed, take_lines

    results = take_lines(reelsense.catalogue, parse_batch(body))
    return {**summed(results), "results": results}
