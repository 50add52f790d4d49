"""The page `/upload`: a form that works by itself, and a script that sends many files, each to be taken up again where
it broke off (tus, `app/upload_routes.py`)."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from app.access import Caller
from app.intaking import Intaking
from app.problems import status_of
from app.site import HEADERS, Site
from app.upload_routes import take_form
from store.errors import ReelsenseError


def upload_pages(site: Site, intaking: Intaking) -> APIRouter:
    """The page of one installation."""
    router = site.router("/upload")
    upload = site.access.require("upload")

    def page(request: Request, error: ReelsenseError | None = None) -> Response:
        from workers.stages import STAGES

        seen = {
            "error": error,
            "most_bytes": intaking.settings.limits.bytes,
            "most_seconds": intaking.settings.limits.seconds,
            "stages": [stage.name for stage in STAGES],
        }
        return site.page(request, "upload.html", seen, 200 if error is None else status_of(error))

    @router.get("")
    def show(request: Request, _: Caller = Depends(upload)) -> Response:  # noqa: B008
        return page(request)

    @router.post("")
    async def take(request: Request, caller: Caller = Depends(upload)) -> Response:  # noqa: B008
        try:
            added, _ = await take_form(intaking, request, caller)
        except ReelsenseError as error:
            # Asking the broker may take a moment, and others are served meanwhile.
            return await run_in_threadpool(page, request, error)
        return RedirectResponse(f"/videos/{added.id}", 303, HEADERS)

    return router
