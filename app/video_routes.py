"""Videos to read, under `/api/v1`: the list, one with all that is understood of it, search, neighbours, duplicates."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.library import Card, Order, State, Wish, shelf
from app.operations import ReelSense, error_json
from reelsense.client import records
from store.filters import MOST_CHARACTERS

MOST_LISTED = 500
K = Annotated[int, Query(ge=1, le=10_000, description="How many at the most.")]


def answer(model: type[records.Record], status: int = 200) -> dict[int | str, dict[str, Any]]:
    """For a route: what it answers, as the description of the API says it. Answers are not checked against it at each
    request; a test does that."""
    return {status: {"model": model}}


def video_routes(reelsense: ReelSense) -> APIRouter:
    """The routes over one installation."""
    router = APIRouter(tags=["videos"])

    @router.get("/videos", responses=answer(records.VideoPage))
    def listed(
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="How many on a page.")] = 100,
        cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
        q: Annotated[str, Query(max_length=1000, description="Words that the videos say or show.")] = "",
        state: Annotated[State, Query(description="Only those in this state; empty: all.")] = "",
        tag: Annotated[str, Query(max_length=100, description="Only those that carry this tag.")] = "",
        where: Annotated[str, Query(max_length=MOST_CHARACTERS, description="A filter, docs/reembedding.md.")] = "",
        order: Annotated[Order, Query(description="By when they were uploaded.")] = "newest",
    ) -> dict[str, Any]:
        """Videos and their states, a page at a time. The other arguments stay the same from page to page; a page may be
        short, or empty, where few of those that were looked at fit."""
        found = shelf(reelsense, Wish(q, state, tag, where, order), cursor, limit)
        return {"videos": [_row(card) for card in found.cards], "next": found.after}

    @router.get("/videos/{video}", responses=answer(records.Video))
    def shown(video: str) -> dict[str, Any]:
        """All that is understood of one video."""
        return reelsense.show(video)

    @router.get("/videos/{video}/similar", responses=answer(records.SimilarVideos))
    def similar(video: str, k: K = 10) -> dict[str, Any]:
        """The videos most like one."""
        return reelsense.similar(video, k)

    @router.get("/search", responses=answer(records.SearchResult))
    def search(q: Annotated[str, Query(min_length=1, max_length=1000)], k: K = 10) -> dict[str, Any]:
        """Videos that say or show what the words ask for."""
        return reelsense.search(q, k)

    @router.get("/duplicates", responses=answer(records.Duplicates))
    def duplicates(
        threshold: Annotated[
            float | None,
            Query(ge=0, le=1, allow_inf_nan=False, description="How much alike; default: as `reelsense duplicates`."),
        ] = None,
    ) -> dict[str, Any]:
        """Groups of videos that show nearly the same pictures. Reads the signature of every video."""
        return reelsense.duplicates(threshold)

    return router


def _row(card: Card) -> dict[str, Any]:
    return {
        "id": card.id,
        "title": card.title,
        "state": card.state,
        "error": error_json(card.error),
        "duration": card.duration,
        "uploaded_at": card.uploaded_at,
        "tags": list(card.tags),
        "attention": dict(card.attention),
        "score": card.score,
        "match": None if card.match is None else dict(card.match),
    }
