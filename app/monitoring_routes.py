"""What machines ask about this installation: is it alive, is it ready, and its figures."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from app.access import Access
from app.operations import ReelSense
from app.problems import problem_document
from app.readiness import NEEDED, Part, parts_of


def monitoring_routes(reelsense: ReelSense, access: Access) -> APIRouter:
    """`/health/...`, which need no key, and `/metrics`, which needs the scope `read`."""
    router = APIRouter()

    @router.get("/health/live")
    def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @router.get("/health/ready")
    def ready() -> Response:
        """Store, database and broker answer; 503 otherwise. `parts` says of each, and of the workers, what is wrong."""
        return _answer(parts_of(reelsense), NEEDED)

    @router.get("/health/workers")
    def workers() -> Response:
        """There is a worker as well, so that what is taken is processed; 503 otherwise."""
        return _answer(parts_of(reelsense), (*NEEDED, "workers"))

    scraper = None

    @router.get("/metrics", dependencies=[Depends(access.require("read"))], response_class=PlainTextResponse)
    def metrics() -> Response:
        """Figures in the text format of Prometheus."""
        nonlocal scraper
        from app.metrics import CONTENT_TYPE, Scraper

        scraper = scraper or Scraper(reelsense)
        return Response(scraper.page(), headers={"content-type": CONTENT_TYPE})

    return router


def _answer(parts: list[Part], needed: tuple[str, ...]) -> Response:
    said = {part.name: part.as_json() for part in parts}
    broken = [part.error for part in parts if part.error is not None and part.name in needed]
    if not broken:
        return JSONResponse({"status": "ready", "parts": said})
    document = problem_document(broken[0], 503) | {"parts": said}
    return JSONResponse(document, 503, media_type="application/problem+json")
