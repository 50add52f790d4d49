"""The header `Idempotency-Key` (`draft-ietf-httpapi-idempotency-key-header`) on POSTs that create something.

A client that lost an answer sends the request again with the same key: what was answered is answered again, marked
`Idempotency-Replayed`, and nothing is done twice. The same key with another content is refused. What failed here, or
was refused for the moment, is not kept: that is what trying again is for.
"""

from __future__ import annotations

import hashlib
import re

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import Access, authorization_of
from app.admission import BusyError
from app.problems import problem
from store.errors import InputError, ReelsenseError
from store.idempotency import Answered, IdempotentRequests

_CREATING = re.compile(
    r"/api/v1/(videos|uploads|uploads/presigned|events|events/batch|jobs|training|viewers/.+/picks)/?"
)
_KEY = re.compile(r"[!-~]{1,255}")
# Those say "not now" or "not you", and nothing of the request.
_PASSING = frozenset((401, 403, 408, 421, 423, 429))
# Of these content types the body is read whole and counts; others (the bytes of a video) are told apart by headers.
_READ_WHOLE = ("application/json", "application/x-ndjson")
_TELLING = ("upload-length", "upload-metadata", "upload-defer-length")
_KEPT_HEADERS = ("content-type", "location", "tus-resumable", "upload-expires", "upload-offset")
_MOST_KEPT = 2**20


def creates(method: str, path: str) -> bool:
    """Whether a request creates something, so that its key is looked at."""
    return method.upper() == "POST" and _CREATING.fullmatch(path) is not None


class Idempotency:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access
        self._rows: IdempotentRequests | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do it once."""
        key = Headers(scope=scope).get("idempotency-key") if scope["type"] == "http" else None
        if key is None or not creates(scope["method"], scope["path"]):
            await self.app(scope, receive, send)
            return
        try:
            name, receive, before = await self._begin(Request(scope, receive), key)
        except ReelsenseError as error:
            if error.code == "request.in_progress":
                error = BusyError(error.code, error.message, retry_seconds=1)
            await problem(None, error)(scope, receive, send)
            return
        if before is not None:
            headers = dict(before.headers) | {"idempotency-replayed": "true"}
            await Response(before.body, before.status, headers)(scope, receive, send)
            return
        await self._first(name, scope, receive, send)

    async def _begin(self, request: Request, key: str) -> tuple[str, Receive, Answered | None]:
        if not _KEY.fullmatch(key):
            raise InputError("request.invalid", "An Idempotency-Key has 1 to 255 printable ASCII characters.")
        authorization = authorization_of(request)
        # Nobody is told what another did, nor what a key did that has expired since.
        caller = await run_in_threadpool(self.access.holder, authorization)
        content = hashlib.sha256()
        receive = request.receive
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() in _READ_WHOLE:
            body = await request.body()
            content.update(body)
            receive = _again(body, receive)
        for header in _TELLING:
            content.update(f"\n{header}={request.headers.get(header, '')}".encode())
        said = f"{caller.user}\n{request.url.path}?{request.url.query}\n{key}"
        name = hashlib.sha256(said.encode()).hexdigest()
        before = await run_in_threadpool(lambda: self._stored().begin(name, content.hexdigest()))
        return name, receive, before

    def _stored(self) -> IdempotentRequests:
        if self._rows is None:
            self._rows = IdempotentRequests(self.access.reelsense.catalogue)
        return self._rows

    async def _first(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None
        body = bytearray()
        ended = False

        async def send_on(message: Message) -> None:
            nonlocal start, ended
            if message["type"] == "http.response.start":
                start = message
            elif start is not None and len(body) <= _MOST_KEPT:
                body.extend(message.get("body", b""))
            if start is not None and message["type"] == "http.response.body" and not message.get("more_body", False):
                # Kept before it is sent: who has the answer can rely on it.
                ended = await run_in_threadpool(self._end, name, start, bytes(body))
            await send(message)

        try:
            await self.app(scope, receive, send_on)
        finally:
            if not ended:
                await run_in_threadpool(self._stored().drop, name)

    def _end(self, name: str, start: Message, body: bytes) -> bool:
        status = start["status"]
        if status >= 500 or status in _PASSING or len(body) > _MOST_KEPT:
            self._stored().drop(name)
        else:
            sent = MutableHeaders(raw=start["headers"])
            kept = {header: sent[header] for header in _KEPT_HEADERS if header in sent}
            self._stored().finish(name, Answered(status=status, headers=kept, body=body))
        return True


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever else comes."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
