"""What a viewer is known for, and the feed made of it, under `/api/v1/viewers`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import StringConstraints

from app.operations import ReelSense
from app.video_routes import K, answer
from reelsense.client import records

Pick = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Place = Annotated[str, Query(max_length=35, pattern=r"^[A-Za-z0-9-]*$")]


def viewer_routes(reelsense: ReelSense) -> APIRouter:
    """The routes over one installation."""
    # `user:path`: names may hold a slash, and %2F is one before routes are looked for.
    router = APIRouter(tags=["viewers"])

    @router.get("/viewers/{user:path}/profile", responses=answer(records.Profile))
    def profile(
        user: str,
        points: Annotated[
            int | None, Query(ge=2, le=1000, description="And the interests over time, at so many moments.")
        ] = None,
    ) -> dict[str, Any]:
        """What is known of a viewer: interests, dislikes, habits, history."""
        return reelsense.profile(user, points)

    @router.get("/viewers/{user:path}/recommend", responses=answer(records.Feed), operation_id="recommend")
    @router.get("/viewers/{user:path}/feed", responses=answer(records.Feed))
    def feed(
        user: str,
        k: K = 10,
        region: Place = "",
        language: Place = "",
        device: Annotated[str, Query(max_length=64)] = "",
        pick: Annotated[list[Pick] | None, Query(max_length=50)] = None,
    ) -> dict[str, Any]:
        """A viewer's feed with its reasons; for a region and a language, or those of the viewer's last event. A new
        viewer starts from there, from the device, and from each `pick`: topics, or ids of videos. `feed` and
        `recommend` are the same."""
        return reelsense.recommend(user, k, region=region, language=language, device=device, picks=pick or ())

    return router
