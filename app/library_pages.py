"""The pages `/library`, and the cards that its script asks for again while their videos are processed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from app.library import STATES, Order, State, Wish, cards_of, common_tags, shelf
from app.site import Site, html
from store.video_listing import count_videos

CARDS = 24
FACETS = 16
Id = Annotated[str, Query(pattern=r"^[0-9a-f]{32}$")]
STATE_NAMES = {"": "All", "ready": "Ready", "processing": "Processing", "waiting": "Waiting", "failed": "Failed"}


def library_pages(site: Site) -> APIRouter:
    """The library of one installation."""
    reelsense = site.reelsense
    router = site.router("/library")
    router.dependencies.append(Depends(site.access.require("read")))

    @router.get("")
    def library(
        request: Request,
        q: Annotated[str, Query(max_length=1000)] = "",
        state: State = "",
        tag: Annotated[str, Query(max_length=100)] = "",
        where: Annotated[str, Query(max_length=4000)] = "",
        order: Order = "newest",
        cursor: Annotated[str | None, Query(max_length=200)] = None,
        part: bool = False,
    ) -> Response:
        wish = Wish(q, state, tag, where, order)
        found = shelf(reelsense, wish, cursor, CARDS)
        seen = {"wish": wish, "shelf": found, "address": _address_of(wish)}
        if part:
            return html("library_cards.html", seen)
        seen |= {
            "count": count_videos(reelsense.catalogue),
            "states": [(name, STATE_NAMES[name]) for name in STATES],
            "facets": common_tags(reelsense.table.snapshot, FACETS),
            "first": cursor is None,
        }
        return site.page(request, "library.html", seen)

    @router.get("/cards")
    def cards(id: Annotated[list[Id], Query(min_length=1, max_length=200)]) -> Response:
        return html("library_some.html", {"cards": cards_of(reelsense, list(dict.fromkeys(id)))})

    return router


def _address_of(wish: Wish) -> Callable[..., str]:
    """A function that gives the address of this library with some of the wish changed, from its first page unless a
    `cursor` is given."""

    def address(cursor: str | None = None, part: bool = False, **changes: str) -> str:
        other = replace(wish, **changes)  # type: ignore[arg-type]
        given = {"q": other.words, "state": other.state, "tag": other.tag, "where": other.where}
        given |= {"order": other.order if other.order != "newest" else "", "cursor": cursor or ""}
        given |= {"part": "1" if part else ""}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"/library?{query}" if query else "/library"

    return address
