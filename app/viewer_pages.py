"""The pages of viewers: `/viewers` lists them, `/viewers/ID` shows what is known of one and what taught it, and lets
them pick, take back, and be forgotten.

A name may hold a slash and any printable character: it is one percent-encoded segment in a link, and `user:path` in a
route, as in the API.
"""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from app.feed_pages import WHO, who
from app.for_you import titles_of, topics
from app.interest_plot import interest_plot
from app.operations import ReelSense
from app.site import HEADERS, Site
from app.viewer_names import LONGEST_NAME, check_viewer
from store.errors import InputError
from store.picks import LONGEST_PICK

PAGE = 50
POINTS = 60
SHOWN_EVENTS = 100
SHOWN_ASIDE = 20
SHOWN_TOPICS = 100
Name = Annotated[str, Query(max_length=4 * LONGEST_NAME)]


def viewer_pages(site: Site) -> APIRouter:
    """`/viewers` and what is below it."""
    reelsense, access = site.reelsense, site.access
    router = site.router("/viewers")
    viewer = [Depends(access.require("recommend"))]
    admin = [Depends(access.require("admin"))]

    @router.get("", dependencies=viewer)
    def listed(request: Request, after: Name = "", beginning: Name = "") -> Response:
        return site.page(request, "viewers.html", _listed(reelsense, after, beginning))

    @router.get("/{user:path}", dependencies=viewer)
    def shown(request: Request, user: str) -> Response:
        if not user:
            return RedirectResponse("/viewers", 303, HEADERS)
        return site.page(request, "viewer.html", _shown(reelsense, user) | {"error": None, "asked": False})

    @router.post("/{user:path}/picks", dependencies=viewer)
    def picks(
        user: str,
        pick: Annotated[str, Form(max_length=LONGEST_PICK)] = "",
        unpick: Annotated[str, Form(max_length=LONGEST_PICK)] = "",
    ) -> Response:
        from app.picking import change_picks

        change_picks(reelsense, user, [pick] if pick.strip() else [], [unpick] if unpick else [])
        return RedirectResponse(f"/viewers/{quote(user, safe='')}#picks", 303, HEADERS)

    @router.post("/{user:path}/forget", dependencies=admin)
    def forget(request: Request, user: str, typed: Annotated[str, Form(max_length=LONGEST_NAME)] = "") -> Response:
        check_viewer(user)
        if typed.strip() != user.strip():
            error = InputError(
                "request.invalid", "The name that was typed is not this viewer's: nothing was forgotten."
            )
            return site.page(request, "viewer.html", _shown(reelsense, user) | {"error": error, "asked": True}, 422)
        from app.forgetting import forget as forget_viewer

        proof = forget_viewer(reelsense, user)
        answer = site.page(request, "forgotten.html", {"proof": proof})
        if who(request) == user:
            answer.delete_cookie(WHO, path="/", httponly=True, samesite="lax")
        return answer

    return router


def _listed(reelsense: ReelSense, after: str, beginning: str) -> dict[str, Any]:
    """A page of viewers, by name. Raises `request.invalid`."""
    from store.known_viewers import viewers_after

    for name in (after, beginning):
        if name:
            check_viewer(name)
    found = viewers_after(reelsense.event_log, after, PAGE + 1, beginning)
    shown = found[:PAGE]
    return {
        "viewers": shown,
        "after": after,
        "beginning": beginning,
        "next": shown[-1].name if len(found) > PAGE else "",
    }


def _shown(reelsense: ReelSense, user: str) -> dict[str, Any]:
    """What the page of one viewer shows. Raises `user.unknown`, `request.invalid`."""
    from ranker.learnt import learnt

    check_viewer(user)
    document = reelsense.profile(user, POINTS)
    table = reelsense.table
    taught = learnt(reelsense.event_log.of(user), table, reelsense.profiles.get(user, table), SHOWN_EVENTS)
    named = [one for part in ("interests", "dislikes") for interest in document[part] for one in interest["videos"]]
    named += [*taught, *document["picks"]]
    ids = [one["video"] if "video" in one else one["pick"] for one in named]
    return {
        "viewer": user,
        "titles": titles_of(reelsense, ids),
        "profile": document,
        "plot": interest_plot(document["over_time"]),
        "learnt": taught,
        "aside": reelsense.event_log.set_aside(None, user, SHOWN_ASIDE),
        "topics": topics(reelsense, SHOWN_TOPICS),
        "now": time.time(),
    }
