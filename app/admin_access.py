"""Who administers over HTTP: one place for the API's routes and for the page.

`check` takes an Authorization header (or None) and returns the name of the caller, or raises `access.*` where that has
no admin scope. A browser cannot send that header by itself, so the page takes the key once by a form and keeps it in a
cookie that scripts cannot read and that no other site's page makes a browser send.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, Response

from app.access import COOKIE, authorization_of
from store.administration import Actor

COOKIE_SECONDS = 12 * 3600
Check = Callable[[str | None], str]


class AdminAccess:
    """The dependencies of administrators' routes."""

    def __init__(self, check: Check) -> None:
        self.check = check

    def http(self, request: Request) -> Actor:
        """A caller of the API who has the admin scope. Raises `access.*`."""
        return Actor(self.check(authorization_of(request)), "http")

    def page(self, request: Request) -> Actor:
        """The same for a browser, which may send the key as a cookie."""
        return Actor(self.check(authorization_of(request)), "page")

    def enter(self, request: Request, response: Response, key: str) -> None:
        """Let this browser send the key from now on. Raises `access.*` for a key that may not administer."""
        self.check(f"Bearer {key}")
        response.set_cookie(
            COOKIE,
            key,
            max_age=COOKIE_SECONDS,
            path="/",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
