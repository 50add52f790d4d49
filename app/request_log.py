"""Outermost around the API: each request gets an id, is timed and counted by its route, and leaves a line in the log.

The id is the client's own (`X-Request-ID`) where that is plain, else a new one; it stands in the answer and on every
line that is logged while the request is answered. Addresses are logged and counted by the route's pattern: what stands
in a path or a query (viewers, words that are searched for) is nobody's to read, and would make labels without end.
"""

from __future__ import annotations

import re
import secrets
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.guard import API
from store import measurements

HEADER = "x-request-id"
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# Asked every few seconds by machines.
_QUIET = frozenset(("/health/live", "/health/ready", "/health/workers", "/metrics"))
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")
log = structlog.get_logger()


class RequestLog:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and note how it went."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request = given if _PLAIN.fullmatch(given) else secrets.token_hex(8)
        status = 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request
            await send(message)

        started = time.monotonic()
        with structlog.contextvars.bound_contextvars(request=request):
            try:
                await self.app(scope, receive, send_on)
            finally:
                seconds = time.monotonic() - started
                route = _route(scope)
                method = scope["method"] if scope["method"] in METHODS else measurements.OTHER
                measurements.count("reelsense_http_requests_total", method=method, route=route, status=str(status))
                measurements.observe("reelsense_http_request_seconds", seconds, route=route)
                say = log.debug if route in _QUIET else log.info
                say("request answered", method=method, route=route, status=status, seconds=round(seconds, 4))


def _route(scope: Scope) -> str:
    """The pattern of the route that answered. Routers keep theirs without the prefix under which they were put."""
    path: str | None = getattr(scope.get("route"), "path", None)
    if path is None:
        return "unmatched"
    # `{user:path}` is how it is matched, and no part of the name.
    path = re.sub(r"\{(\w+):\w+\}", r"{\1}", path)
    return API + path if scope["path"].startswith(API + "/") and not path.startswith(API) else path
