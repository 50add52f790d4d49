"""Who administers over HTTP: one place for the API's routes and for the page.

`check` takes an Authorization header (or None) and returns the name of the caller, or raises `access.*` where that has
no admin scope. A browser cannot send that header by itself, so the page takes the key once by a form and keeps it in a
cookie that scripts cannot read and that no other site's page makes a browser send.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, Response

from store.administration import Actor
from store.errors import InputError

COOKIE = "reelsense_key"
COOKIE_SECONDS = 12 * 3600
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
Check = Callable[[str | None], str]


def everybody(_authorization: str | None) -> str:
    """The check of an API that has no keys: whoever reaches it on this machine."""
    return "local"


class AdminAccess:
    """The dependencies of administrators' routes."""

    def __init__(self, check: Check) -> None:
        self.check = check

    def http(self, request: Request) -> Actor:
        """A caller of the API who has the admin scope. Raises `access.*`, `request.cross_site`."""
        same_origin(request)
        return Actor(self.check(request.headers.get("authorization")), "http")

    def page(self, request: Request) -> Actor:
        """The same for a browser, which may send the key as a cookie."""
        same_origin(request)
        key = request.cookies.get(COOKIE)
        return Actor(self.check(request.headers.get("authorization") or (f"Bearer {key}" if key else None)), "page")

    def enter(self, request: Request, response: Response, key: str) -> None:
        """Let this browser send the key from now on. Raises `access.*` for a key that may not administer."""
        self.check(f"Bearer {key}")
        response.set_cookie(
            COOKIE,
            key,
            max_age=COOKIE_SECONDS,
            path="/operations",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )


def same_origin(request: Request) -> None:
    """Refuse what a page of another site makes a browser send. Programs send neither header, and pass.

    Raises `request.cross_site`.
    """
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    host = request.headers.get("host", "").lower()
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and origin.partition("://")[2].lower() != host
    if foreign:
        raise InputError("request.cross_site", "A page of another site may not send this request.")
