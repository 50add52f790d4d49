"""Who administers over HTTP: one place for the API's routes and for the page.

`check` takes the Authorization of a request (or None) and returns the name of the caller, or raises `access.*` where
that has no admin scope. What a browser sends in its stead is in `app/access.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request

from app.access import authorization_of
from store.administration import Actor

Check = Callable[[str | None], str]


class AdminAccess:
    """The dependencies of administrators' routes."""

    def __init__(self, check: Check) -> None:
        self.check = check

    def http(self, request: Request) -> Actor:
        """A caller of the API who has the admin scope. Raises `access.*`."""
        return Actor(self.check(authorization_of(request)), "http")

    def page(self, request: Request) -> Actor:
        """The same for who uses a page: the audit log tells the two apart."""
        return Actor(self.check(authorization_of(request)), "page")
