"""The page For You (`/`): a viewer's videos one under another, as the apps do, and what is done with them.

With script (`for_you.js`) videos play as they come into sight, what is done is sent as events by itself, and the cards
that wait below are asked for again after each. Without it the page is a list with links, and forms for the events. Who
watches is a choice kept in a cookie; it is no secret and no login: whoever may read the feed may choose.
"""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from app.for_you import Asked, beginning, cards
from app.site import HEADERS, Site
from app.viewer_names import LONGEST_NAME, check_viewer
from app.web_captions import captions_of
from store.errors import InputError, ReelsenseError
from store.picks import MOST_PICKS

WHO = "reelsense_viewer"
WHO_SECONDS = 365 * 86_400
# As many ids as a page may hold; each has 32 hex digits.
MOST_IDS = 200
Ids = Annotated[str, Query(max_length=33 * MOST_IDS)]
Name = Annotated[str, Form(max_length=4 * LONGEST_NAME)]


def feed_pages(site: Site) -> APIRouter:
    """`/`, and what it asks for."""
    reelsense, access = site.reelsense, site.access
    router = site.router()
    viewer = [Depends(access.require("recommend"))]
    reader = [Depends(access.require("read"))]

    @router.get("/", dependencies=viewer)
    def for_you(request: Request, done: Annotated[str, Query(max_length=200)] = "") -> Response:
        user = who(request)
        if not user:
            return site.page(request, "who.html", beginning(reelsense) | {"error": None, "user": ""})
        return site.page(request, "for_you.html", cards(reelsense, user) | {"done": done, "now": time.time()})

    @router.get("/feed/cards", dependencies=viewer)
    def more(
        request: Request,
        user: Annotated[str, Query(max_length=4 * LONGEST_NAME)],
        passed: Ids = "",
        before: Ids = "",
        kind: Annotated[str, Query(max_length=32)] = "",
        video: Annotated[str, Query(max_length=32)] = "",
    ) -> Response:
        check_viewer(user)
        asked = Asked(_ids(passed), _ids(before), kind, video)
        return site.page(request, "feed_cards.html", cards(reelsense, user, asked=asked))

    @router.get("/feed/captions/{video}.vtt", dependencies=reader)
    def captions(video: str) -> Response:
        return Response(captions_of(reelsense, video), headers=HEADERS, media_type="text/vtt")

    @router.get("/who", dependencies=viewer)
    def choose(request: Request) -> Response:
        return site.page(request, "who.html", beginning(reelsense) | {"error": None, "user": who(request)})

    @router.post("/who", dependencies=viewer)
    def chosen(
        request: Request,
        user: Name = "",
        pick: Annotated[list[str] | None, Form(max_length=MOST_PICKS)] = None,
    ) -> Response:
        name = user.strip()
        try:
            check_viewer(name)
            if pick:
                from app.picking import change_picks

                change_picks(reelsense, name, pick, [])
        except InputError as error:
            seen = beginning(reelsense) | {"error": error, "user": who(request)}
            return site.page(request, "who.html", seen, 422)
        answer = RedirectResponse("/", 303, HEADERS)
        remember(request, answer, name)
        return answer

    @router.post("/feed/acts", dependencies=viewer)
    def act(
        user: Name,
        video: Annotated[str, Form(max_length=32)],
        kind: Annotated[str, Form(max_length=32)],
        id: Annotated[str, Form(max_length=64)],
        watched_seconds: Annotated[float | None, Form()] = None,
    ) -> Response:
        """The forms of the cards, for who has no script."""
        given: dict[str, Any] = {"id": f"{id}-{kind}"}
        taken = reelsense.event(user, video, kind, watched_seconds, **given)
        said = "set aside" if taken["set_aside"] else "noted" if taken["new"] else "known already"
        return RedirectResponse(f"/?done={quote(said)}", 303, HEADERS)

    return router


def who(request: Request) -> str:
    """Who watches in this browser; empty when nobody was chosen."""
    name = unquote(request.cookies.get(WHO, ""))
    try:
        check_viewer(name)
    except ReelsenseError:
        return ""
    return name


def remember(request: Request, answer: Response, user: str) -> None:
    """Keep who watches in this browser; a cookie holds ASCII alone."""
    answer.set_cookie(
        WHO,
        quote(user, safe=""),
        max_age=WHO_SECONDS,
        path="/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def _ids(text: str) -> tuple[str, ...]:
    """Ids with commas between them, each once. Raises `request.invalid` for what is no list of ids."""
    names = tuple(dict.fromkeys(name for name in text.split(",") if name))
    if len(names) > MOST_IDS or not all(len(name) <= 32 and name.isalnum() and name.isascii() for name in names):
        raise InputError("request.invalid", f"That is no list of at most {MOST_IDS} ids with commas between them.")
    return names
