"""ETags on what the API answers to reads: a client that has it already is told so, and its bytes stay here.

The tag is the digest of the answer, so it costs making the answer and saves sending it; what has cheaper names of its
own (media, pictures) sets them itself and is passed on as it is, as streams are.
"""

from __future__ import annotations

import hashlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.entity_tags import has_already

PREFIX = "/api/"
# Whoever keeps it asks again before using it: nothing old is ever shown.
CACHE = "private, no-cache"
VARY = "Authorization, Cookie"


class Conditional:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the tag of the answer."""
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(PREFIX):
            await self.app(scope, receive, send)
            return
        wanted = Headers(scope=scope).get("if-none-match", "")
        start: Message | None = None
        body = bytearray()

        async def send_on(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_document(message):
                start = message
            elif start is None:
                await send(message)
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    await _end(start, bytes(body), wanted, send)

        await self.app(scope, receive, send_on)


def _is_document(message: Message) -> bool:
    headers = Headers(raw=message["headers"])
    return message["status"] == 200 and headers.get("content-type") == "application/json" and "etag" not in headers


async def _end(start: Message, body: bytes, wanted: str, send: Send) -> None:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = MutableHeaders(scope=start)
    headers["etag"] = tag
    headers["cache-control"] = CACHE
    headers["vary"] = VARY
    if has_already(wanted, tag):
        del headers["content-length"], headers["content-type"]
        start["status"], body = 304, b""
    await send(start)
    await send({"type": "http.response.body", "body": body})
