"""The page `/map`: every video at its place among the others, and the points that its script draws."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from app.catalogue_map import Cartographer
from app.operations import title_of
from app.site import HEADERS, Site

ASK_AGAIN_SECONDS = 2


def map_pages(site: Site) -> APIRouter:
    """The map of one installation."""
    reelsense = site.reelsense
    cartographer = Cartographer(reelsense)
    router = site.router("/map")
    router.dependencies.append(Depends(site.access.require("read")))

    @router.get("")
    def page(request: Request) -> Response:
        found = cartographer.current()
        examples = [video for group in found.groups for video in group.examples] if found else []
        titles = {video.id: title_of(video) for video in reelsense.catalogue.videos(examples)}
        return site.page(request, "map.html", {"map": found, "titles": titles})

    @router.get("/points")
    def points(request: Request) -> Response:
        found = cartographer.current()
        if found is None:
            headers = HEADERS | {"retry-after": str(ASK_AGAIN_SECONDS)}
            return JSONResponse({"drawing": True}, 202, headers=headers)
        headers = HEADERS | {"etag": f'"{found.tag}"', "cache-control": "private, no-cache"}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return JSONResponse(found.document, headers=headers)

    return router
