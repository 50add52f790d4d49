"""The page `/quality`: what was measured, as tables and plots, and the rankers that were trained here.

It reads files that come with the program and the cards of trained rankers, and works without script.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from app import quality, ranker_models
from app.access import Access
from app.site import Site


def quality_pages(site: Site, access: Access) -> APIRouter:
    """The page over one installation."""
    router = site.router()

    @router.get("/quality", dependencies=[Depends(access.require("read"))])
    def page(request: Request) -> Response:
        table, absent = quality.reading()
        seen = {
            "parts": quality.parts(),
            "reading": table,
            "reading_absent": absent,
            "rankers": ranker_models.listed(site.reelsense)["models"],
        }
        return site.page(request, "quality.html", seen)

    return router
