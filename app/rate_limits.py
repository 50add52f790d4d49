"""How many requests a caller may send: a bucket for reads and one for writes of each, which fill by the second.

A caller is a key, or an address where none is sent. Answers say what is left (`RateLimit`, by the IETF's draft
`draft-ietf-httpapi-ratelimit-headers`), and 429 says in `Retry-After` when to come back. Who sends keys that are
refused is counted by address, and soon waits as well: keys cannot be tried out in haste. A key that was good a moment
ago is never kept waiting for what its neighbours try.

Counted in this process alone: several processes let through as many times more. Pieces of uploads are not counted:
`app.admission` bounds those.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import COOKIE
from app.admission import BusyError
from app.guard import UPLOADS
from app.problems import problem
from store.settings import Rates

PREFIX = "/api/"
WINDOW_SECONDS = 60
MOST_CALLERS = 10_000
_READS = frozenset(("GET", "HEAD", "OPTIONS"))


@dataclass
class Bucket:
    """`left` of `most`, filling by `most` in a window; `at` is when that was so, by the steady clock."""

    most: int
    left: float
    at: float

    def fill(self, now: float) -> None:
        """Let in what has come since."""
        self.left = min(float(self.most), self.left + (now - self.at) * self.most / WINDOW_SECONDS)
        self.at = now

    def wait(self) -> int:
        """Whole seconds until there is one again."""
        return max(1, math.ceil((1.0 - self.left) * WINDOW_SECONDS / self.most))


class RateLimits:
    """ASGI middleware. `clock` is steady."""

    def __init__(self, app: ASGIApp, rates: Rates, clock: Callable[[], float] = time.monotonic) -> None:
        self.app = app
        self.most = {"reads": rates.reads, "writes": rates.writes, "refused": rates.refused}
        self.clock = clock
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()
        self._good: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass, or say when to come back."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        address = f"address {(scope.get('client') or ('',))[0]}"
        key = _key(Headers(scope=scope))
        kind = "reads" if scope["method"] in _READS else "writes"
        refused = self._bucket("refused", address) if key and key not in self._good else None
        bucket = self._bucket(kind, key or address) if _counted(scope) else None
        for name, asked in (("refused", refused), (kind, bucket)):
            if asked is not None and asked.left < 1.0:
                await problem(None, _too_many(name, asked))(scope, receive, self._told(send, kind, bucket))
                return
        if bucket is not None:
            bucket.left -= 1.0

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._learn(key, refused, message["status"])
            await send(message)

        await self.app(scope, receive, self._told(send_on, kind, bucket))

    def _bucket(self, kind: str, whose: str) -> Bucket | None:
        most, now = self.most[kind], self.clock()
        if not most:
            return None
        found = self._buckets.get((kind, whose))
        if found is None:
            found = self._buckets[kind, whose] = Bucket(most, float(most), now)
            while len(self._buckets) > MOST_CALLERS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end((kind, whose))
        found.fill(now)
        return found

    def _learn(self, key: str, refused: Bucket | None, status: int) -> None:
        if not key:
            return
        if status == 401:
            self._good.pop(key, None)
            if refused is not None:
                refused.left -= 1.0
        elif key not in self._good:
            self._good[key] = None
            while len(self._good) > MOST_CALLERS:
                self._good.popitem(last=False)

    def _told(self, send: Send, kind: str, bucket: Bucket | None) -> Send:
        async def send_on(message: Message) -> None:
            if bucket is not None and message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                left = max(0, math.floor(bucket.left))
                full = math.ceil((bucket.most - bucket.left) * WINDOW_SECONDS / bucket.most)
                headers["ratelimit-policy"] = f'"{kind}";q={bucket.most};w={WINDOW_SECONDS}'
                headers["ratelimit"] = f'"{kind}";r={left};t={max(0, full)}'
            await send(message)

        return send_on


def _counted(scope: Scope) -> bool:
    path = scope["path"]
    piece = path.startswith(UPLOADS) and scope["method"] in ("PATCH", "HEAD")
    return bool(path.startswith(PREFIX)) and not piece


def _key(headers: Headers) -> str:
    """What names the caller's key, empty without one; never the key itself."""
    sent = headers.get("authorization") or cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
    return hashlib.sha256(sent.encode()).hexdigest() if sent else ""


def _too_many(kind: str, bucket: Bucket) -> BusyError:
    what = "requests with keys that are refused" if kind == "refused" else kind
    return BusyError(
        "request.too_many",
        f"More than {bucket.most} {what} in {WINDOW_SECONDS} seconds.",
        hint=f"Come back when `Retry-After` says; the setting `rates.{kind}` says how many.",
        retry_seconds=bucket.wait(),
    )
