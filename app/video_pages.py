"""The page `/videos/ID`: a video, and all that is understood of it, along its time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from app import video_view
from app.access import Caller
from app.admin_access import AdminAccess
from app.administration import Administrator
from app.deleting import delete as delete_everywhere
from app.operations import ReelSense
from app.site import HEADERS, Site, segment
from store.administration import LONGEST_REASON, Administration, Mark
from store.errors import InputError, NotFoundError, ReelsenseError

SIMILAR = 8
Seconds = Annotated[float | None, Query(ge=0, le=1e7, allow_inf_nan=False)]


def video_pages(site: Site, admin: AdminAccess) -> APIRouter:
    """The page of each video of one installation, its captions, and its buttons."""
    reelsense = site.reelsense
    router = site.router("/videos")
    read = site.access.require("read")

    @router.get("/{video}")
    def page(request: Request, video: str, t: Seconds = None, caller: Caller = Depends(read)) -> Response:  # noqa: B008
        found = reelsense.catalogue.video(video)
        if found.id != video:
            # A beginning of an id is enough to come here, and has one address.
            return RedirectResponse(f"/videos/{found.id}", 302, HEADERS)
        aside = _set_aside(reelsense, video, caller)
        shown = reelsense.show(video)
        seen = {
            "video": shown,
            "at": t,
            "frames_there": bool(shown["frame_seconds"]),
            "aside": aside,
            "administers": "admin" in caller.scopes,
            "strips": video_view.attention_strips(shown),
            "sound": video_view.sound_strip(shown),
            "others": video_view.other_strips(shown),
            "key_frames": video_view.key_frames(shown),
            "ticks": video_view.ticks(shown["duration"]),
            "texts": video_view.texts(shown),
            "rows": video_view.stage_rows(shown, reelsense.catalogue.runs([video])),
            "similar": _similar(reelsense, video),
            "uploaded_at": found.uploaded_at,
            "events": Administrator(reelsense, admin.page(request)).timeline(video)["events"]
            if "admin" in caller.scopes
            else [],
        }
        return site.page(request, "video.html", seen)

    @router.get("/{video}/captions/{number}.vtt")
    def captions(video: str, number: int, caller: Caller = Depends(read)) -> Response:  # noqa: B008
        _set_aside(reelsense, video, caller)
        found = video_view.texts(reelsense.show(video))
        if not 0 <= number < len(found):
            raise NotFoundError("video.unknown", "This video has no such captions.")
        return Response(video_view.web_vtt(found[number][2]), headers=HEADERS, media_type="text/vtt")

    administers = Depends(site.access.require("admin"))

    @router.post("/{video}/delete", dependencies=[administers])
    def delete(request: Request, video: str, sure: Annotated[str, Form(max_length=10)] = "") -> Response:
        if sure != "yes":
            raise InputError("request.invalid", "Nothing was deleted: say that you are sure.")
        delete_everywhere(Administrator(reelsense, admin.page(request)), video)
        return RedirectResponse("/library", 303, HEADERS)

    @router.post("/{video}/{what}", dependencies=[administers])
    def change(
        request: Request,
        video: str,
        what: Literal["retry", "prioritise", "cancel", "quarantine", "release"],
        reason: Annotated[str, Form(max_length=LONGEST_REASON)] = "",
    ) -> Response:
        by = Administrator(reelsense, admin.page(request))
        if what == "quarantine":
            by.quarantine(video, reason)
        else:
            {"retry": by.retry, "prioritise": by.prioritise, "cancel": by.cancel, "release": by.release}[what](video)
        return RedirectResponse(f"/videos/{segment(video)}#processing", 303, HEADERS)

    return router


def _set_aside(reelsense: ReelSense, video: str, caller: Caller) -> Mark | None:
    """Why the video is in quarantine, if it is: then it is for administrators alone. Raises `video.quarantined`."""
    mark = Administration(reelsense.catalogue).quarantined([video]).get(video)
    if mark is not None and "admin" not in caller.scopes:
        raise InputError("video.quarantined", mark.message)
    return mark


def _similar(reelsense: ReelSense, video: str) -> list[dict[str, Any]]:
    """The videos most like this one; none while it is not published itself."""
    try:
        items: list[dict[str, Any]] = reelsense.similar(video, SIMILAR)["items"]
    except ReelsenseError as error:
        if error.code in ("video.unknown", "store.missing", "store.artifact_damaged"):
            return []
        raise
    return items
