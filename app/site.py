"""What all pages share: how they are rendered and headed, how a key is entered, and how an error reads.

A page's module makes its router by `site.router()`, asks for a scope as the API does (`Depends(access.require(...))`),
and answers with `site.page(...)`. Whatever it raises is answered here: a refusal with the form that asks for a key,
anything else with its code and sentence. Pages are HTML whose links and forms work without script. Nothing is loaded
from another host or written inline, and the policy in their headers forbids it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import jinja2
from fastapi import APIRouter, Form, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from app import problems
from app.access import COOKIE, Access
from app.assets import PAGES, address
from app.operations import ReelSense
from app.queue_commands import clock, duration
from app.readiness import Part, broker_of
from store.api_keys import AccessError
from store.errors import ReelsenseError

HEADERS = {
    "content-security-policy": "default-src 'self'; object-src 'none'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    # With `no-referrer` browsers send `Origin: null` with a form, which looks like another site's.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
# Paths that programs ask for: their errors are problem details whatever a browser would accept.
MACHINES = ("/api/", "/health/", "/metrics", "/assets/")
# How long it is believed that the broker answers, or does not.
BROKER_SECONDS = 5.0


class PageRoute(APIRoute):
    """A route whose answers people read."""


class Site:
    """The pages of one installation."""

    def __init__(self, reelsense: ReelSense, access: Access) -> None:
        self.reelsense = reelsense
        self.access = access
        self._broker: tuple[float, Part | None] = (float("-inf"), None)

    def router(self, prefix: str = "") -> APIRouter:
        """A router for pages."""
        return APIRouter(prefix=prefix, include_in_schema=False, route_class=PageRoute)

    def page(self, request: Request, name: str, seen: dict[str, Any], status: int = 200) -> Response:
        """The template `name`, which extends `base.html`, with what it shows."""
        common = {"path": request.url.path, "entered": COOKIE in request.cookies, "broker_error": self._broker_error()}
        return html(name, common | seen, status)

    def _broker_error(self) -> dict[str, Any] | None:
        """Why what is uploaded now would wait, in words that anybody may read; pages can be read all the same."""
        asked, part = self._broker
        if part is None or time.monotonic() - asked > BROKER_SECONDS:
            part = broker_of(self.reelsense)
            self._broker = (time.monotonic(), part)
        return None if part.error is None else part.as_json()

    # --- keys --------------------------------------------------------------------------------------------------------

    def key_routes(self) -> APIRouter:
        """`/key`: where a browser enters a key, and leaves."""
        router = self.router()

        @router.get("/key")
        def ask(request: Request, then: str = "/") -> Response:
            return self._ask(request, None, then, 200)

        @router.post("/key")
        def enter(
            request: Request,
            key: Annotated[str, Form(max_length=200)],
            then: Annotated[str, Form(max_length=2000)] = "/",
        ) -> Response:
            answer = RedirectResponse(_local(then), 303, HEADERS)
            try:
                self.access.enter(request, answer, key.strip())
            except AccessError as error:
                return self._ask(request, error, then, 401)
            return answer

        @router.post("/key/leave")
        def leave() -> Response:
            answer = RedirectResponse("/key", 303, HEADERS)
            self.access.leave(answer)
            return answer

        return router

    def _ask(self, request: Request, error: ReelsenseError | None, then: str, status: int) -> Response:
        common = {"path": request.url.path, "entered": COOKIE in request.cookies, "broker_error": None}
        return html("key.html", common | {"error": error, "then": _local(then)}, status)

    # --- errors ------------------------------------------------------------------------------------------------------

    def problem(self, request: Request, error: Exception) -> Response:
        """An error as a page where people ask, as problem details where programs do."""
        if not isinstance(error, ReelsenseError) or not _for_people(request):
            return problems.problem(request, error)
        problems.counted(error)
        status = problems.status_of(error)
        if isinstance(error, AccessError):
            # Somebody who has only just come is asked, not told off.
            first = error.code == "access.key_missing"
            return self._ask(request, None if first else error, _asked(request), status)
        return self._error(request, error, status)

    def malformed(self, request: Request, error: Exception) -> Response:
        """The same for a request that FastAPI refuses."""
        if not _for_people(request):
            return problems.malformed(request, error)
        assert isinstance(error, RequestValidationError)
        return self._error(request, problems.malformed_error(error), 422)

    def unrouted(self, request: Request, error: Exception) -> Response:
        """The same for an address that does not exist, or not for this method."""
        assert isinstance(error, HTTPException)
        if not _for_people(request):
            return problems.unrouted(request, error)
        return self._error(request, problems.unrouted_error(error), error.status_code)

    def _error(self, request: Request, error: ReelsenseError, status: int) -> Response:
        # Not `page`: that asks the broker, and what failed may be what it would ask.
        common = {"path": request.url.path, "entered": COOKIE in request.cookies, "broker_error": None}
        return html("error.html", common | {"error": error, "status": status}, status)


def html(name: str, seen: dict[str, Any], status: int = 200) -> Response:
    """A template rendered: what stands in `seen` is escaped."""
    return HTMLResponse(templates().get_template(name).render(seen), status, HEADERS)


@cache
def templates() -> jinja2.Environment:
    """The templates of `app/pages`, and the filters they know."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    environment.globals["asset"] = address
    environment.filters["clock"] = clock
    environment.filters["duration"] = duration
    environment.filters |= {"segment": segment, "clocked": clocked, "day": day, "instant": instant}
    return environment


def clocked(seconds: float) -> str:
    """Seconds within a video as people say them: `0:07`, `1:02:03`."""
    whole = int(seconds)
    minutes = f"{whole // 60 % 60:02d}" if whole >= 3600 else str(whole // 60)
    return (f"{whole // 3600}:" if whole >= 3600 else "") + f"{minutes}:{whole % 60:02d}"


def instant(at: float) -> str:
    """A moment for machines."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def day(at: float) -> str:
    """A day for people: `25 Nov 2026` (UTC)."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day} {moment:%b %Y}"


def _plain(value: Any) -> Any:
    """Texts without the control characters that HTML has no place for."""
    return value.translate(_CONTROLS) if isinstance(value, str) else value


_CONTROLS = {number: None for number in (*range(0x20), *range(0x7F, 0xA0)) if chr(number) not in "\t\n\r"}


def segment(text: str) -> str:
    """Any text as one segment of a path; Jinja's `urlencode` leaves slashes as they are."""
    return quote(text, safe="")


def _for_people(request: Request) -> bool:
    """Whether a page is the answer that is wanted."""
    accepted = request.headers.get("accept", "")
    if isinstance(request.scope.get("route"), PageRoute):
        return "json" not in accepted
    return "text/html" in accepted and not request.url.path.startswith(MACHINES)


def _asked(request: Request) -> str:
    """Where to go once a key is entered: back to the page that asked for it, if it can be asked for again."""
    if request.method != "GET":
        return "/"
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _local(then: str) -> str:
    """An address of this site, whatever was asked for: `//evil.example` and `/\\evil.example` are others'."""
    if not then.startswith("/") or then[1:2] in ("/", "\\") or not then.isprintable():
        return "/"
    parts = urlsplit(then)
    path = quote(parts.path, safe="/%")
    return path + (f"?{quote(parts.query, safe='=&%+')}" if parts.query else "")
