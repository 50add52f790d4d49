"""What stands before every route: host and origin of the request, size and speed of its body, headers of the answer.

- Host: a page of an attacker's that makes its own DNS name point to 127.0.0.1 sends that name, and is refused.
- Origin: a page of another site cannot make a browser change anything here. Browsers say where a request comes from
  (`Sec-Fetch-Site`, `Origin`); programs say nothing, and pass.
- Body: bytes are counted as they come, whatever Content-Length says. Only the time spent *waiting* for the client
  counts, so that a slow disk here is not held against it.
"""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import is_loopback
from app.problems import problem
from store.errors import InputError, ReelsenseError
from store.settings import Settings

API = "/api/v1"
UPLOADS = f"{API}/uploads"
# The API's form, and that of the page.
FORMS = (f"{API}/videos", "/upload")
# What stands in a form beside the video: words, caption files, and the lines between the parts.
FORM_EXTRA_BYTES = 2**20
MOST_CAPTIONS = 8
TUS_VERSION = "1.0.0"
_SAFE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
# Set where the route has not set its own: a page to come may allow itself more.
HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware around the API."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.hosts = frozenset(name.strip().lower() for name in settings.api_hosts.split(",") if name.strip())
        self.loopback = is_loopback(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass, or answer it with the reason."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # there are none here
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body = _Body(self.settings, receive, _largest(self.settings, scope["method"], scope["path"]))
        started = replaced = False

        async def send_on(message: Message) -> None:
            nonlocal started, replaced
            if body.failure is not None and not started:
                # Whatever the route made of the broken body, this is why it broke.
                started = replaced = True
                await problem(None, body.failure)(scope, receive, send_with_headers)
            if not replaced:
                started = True
                await send_with_headers(message)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answer.setdefault(name, value)
                if body.failure is not None:
                    # Without it the server would go on reading, and a client could dawdle for ever.
                    answer["connection"] = "close"
                if scope["path"].startswith(UPLOADS):
                    answer.setdefault("tus-resumable", TUS_VERSION)
            await send(message)

        try:
            self._check_host(headers)
            self._check_origin(scope["method"], headers)
            body.check_announced(headers)
        except ReelsenseError as error:
            await problem(None, error)(scope, receive, send_with_headers)
            return
        await self.app(scope, body.receive, send_on)

    def _check_host(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        name = _name(hosts[0]) if len(hosts) == 1 else ""
        if name and name in self.hosts:
            return
        # Without a list: beyond loopback the operator's own names are unknown; on loopback they are known.
        if name and not self.hosts and (not self.loopback or is_loopback(name)):
            return
        raise InputError(
            "request.host_unknown",
            "The Host header does not name this API.",
            hint="Call it by 127.0.0.1 or localhost, or name the host in REELSENSE_API_HOSTS.",
        )

    def _check_origin(self, method: str, headers: Headers) -> None:
        override = headers.get("x-http-method-override", "")
        if method in _SAFE and (not override or override.upper() in _SAFE):
            return
        site = headers.get("sec-fetch-site")
        origin = headers.get("origin")
        foreign = site not in ("same-origin", "none") if site is not None else False
        if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
            foreign = True
        if foreign:
            raise InputError("request.cross_site", "A page of another site may not send this request.")


class _Body:
    """A request's body as it comes: counted and timed. `failure`: why it was cut off, if it was."""

    def __init__(self, settings: Settings, receive: Receive, largest: int) -> None:
        self.intake = settings.intake
        self.largest = largest
        self.failure: ReelsenseError | None = None
        self._receive = receive
        self._bytes = 0
        self._waited = 0.0
        self._more = True

    def check_announced(self, headers: Headers) -> None:
        """Refuse by Content-Length what is too large, before reading it. Raises `request.too_large`."""
        announced = headers.get("content-length", "0")
        if not announced.isascii() or not announced.isdigit() or int(announced[:20]) > self.largest:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next message of the client."""
        if not self._more:
            return await self._receive()
        began = time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), self.intake.silence_seconds)
        except TimeoutError:
            self.failure = InputError(
                "request.too_slow", f"Nothing came for {self.intake.silence_seconds:g} seconds; the body has not ended."
            )
            raise self.failure from None
        self._waited += time.monotonic() - began
        self._bytes += len(message.get("body", b""))
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        if self._bytes > self.largest:
            self.failure = self._too_large()
        elif self._more and self._bytes < self.intake.least_rate * (self._waited - self.intake.silence_seconds):
            self.failure = InputError(
                "request.too_slow", f"The body came at less than {self.intake.least_rate} bytes a second."
            )
        if self.failure is not None:
            raise self.failure
        return message

    def _too_large(self) -> ReelsenseError:
        return InputError("request.too_large", f"The body of this request may have {self.largest} bytes at most.")


def _largest(settings: Settings, method: str, path: str) -> int:
    """Most bytes of the body of a request."""
    limits = settings.limits
    if path.startswith(UPLOADS):
        return limits.caption_bytes if method == "PUT" else limits.bytes
    if path.rstrip("/") in FORMS and method == "POST":
        return limits.bytes + MOST_CAPTIONS * limits.caption_bytes + FORM_EXTRA_BYTES
    return settings.intake.request_bytes


def _name(host: str) -> str:
    """A Host header without its port, in lower case: `[::1]:80` gives `::1`."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
