"""Who may ask what over HTTP: a FastAPI dependency for each route, `access.require(SCOPE)`.

No key was ever made and the API listens on loopback: all is open, as one user, `local`. Otherwise every request carries
`Authorization: Bearer KEY`, and the key has the scope (`admin` has every one). Beyond loopback without keys nothing is
answered, and `check_bind` does not even start, unless `trusted_network` says that nobody else can reach the address.

A browser cannot send that header by itself, so it enters a key once by a form (`/key`), and a cookie carries it that
scripts cannot read and that no other site's page makes a browser send. It counts wherever the header does, for pages
load pictures and media from the API; `app/guard.py` refuses what other sites' pages would have it do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request, Response

from app.operations import ReelSense
from store.api_keys import SCOPES, AccessError, ApiKeys, Scope
from store.catalogue import Catalogue
from store.errors import SettingsError
from store.settings import Settings

LOCAL_USER = "local"
COOKIE = "reelsense_key"
COOKIE_SECONDS = 12 * 3600


@dataclass(frozen=True)
class Caller:
    """Who asks: the id of the key, or `local`; and its scopes."""

    user: str
    scopes: frozenset[Scope]

    def may_see(self, user: str) -> bool:
        """Whether what belongs to `user` is this caller's to see."""
        return user == self.user or "admin" in self.scopes


EVERYTHING = frozenset(SCOPES)


class Access:
    """The checks of one API."""

    def __init__(self, reelsense: ReelSense) -> None:
        self.reelsense = reelsense
        self.open_without_keys = is_loopback(reelsense.settings.host) or reelsense.settings.trusted_network
        self._keys: ApiKeys | None = None

    @property
    def keys(self) -> ApiKeys:
        """The keys; the database is opened at the first request."""
        if self._keys is None:
            self._keys = ApiKeys(self.reelsense.catalogue)
        return self._keys

    def require(self, scope: Scope) -> Callable[[Request], Caller]:
        """A dependency that lets only callers with this scope pass. Raises `access.*`."""

        def caller(request: Request) -> Caller:
            return self.caller(authorization_of(request), scope)

        caller.__dict__["scope"] = scope
        return caller

    def caller(self, authorization: str | None, scope: Scope) -> Caller:
        """Who sends this Authorization header, and may do what the scope allows. Raises `access.*`."""
        holder = self.holder(authorization)
        if scope not in holder.scopes:
            raise AccessError(
                "access.scope_missing", f"The API key {holder.user} does not have the scope `{scope}` of this request."
            )
        return holder

    def holder(self, authorization: str | None) -> Caller:
        """Who sends this Authorization header, whatever they may do. Raises `access.*`."""
        if self.open_without_keys and not self.keys.exist():
            return Caller(LOCAL_USER, EVERYTHING)
        if not authorization:
            raise AccessError(
                "access.key_missing",
                "This request needs an API key.",
                hint="Send `Authorization: Bearer KEY`; `reelsense key create` makes one.",
            )
        kind, _, text = authorization.partition(" ")
        if kind.lower() != "bearer":
            raise AccessError("access.key_invalid", "The Authorization header is not `Bearer KEY`.")
        key = self.keys.check(text.strip())
        return Caller(key.id, EVERYTHING if "admin" in key.scopes else frozenset(key.scopes))

    def enter(self, request: Request, response: Response, key: str) -> None:
        """Let this browser send the key from now on. Raises `access.*` for one that is no key."""
        self.keys.check(key)
        response.set_cookie(
            COOKIE,
            key,
            max_age=COOKIE_SECONDS,
            path="/",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )

    def leave(self, response: Response) -> None:
        """Let this browser send no key any more."""
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")


def authorization_of(request: Request) -> str | None:
    """The Authorization of a request: its header, or the key that this browser once entered."""
    key = request.cookies.get(COOKIE)
    return request.headers.get("authorization") or (f"Bearer {key}" if key else None)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_bind(settings: Settings) -> None:
    """Refuse to listen beyond this machine while there are no keys. Raises `settings.invalid`."""
    if is_loopback(settings.host) or settings.trusted_network:
        return
    catalogue = Catalogue(settings.database_url())
    try:
        keys_exist = ApiKeys(catalogue).exist()
    finally:
        catalogue.close()
    if not keys_exist:
        raise SettingsError(
            "settings.invalid",
            f"There is no API key yet, so the API listens on loopback only, not on {settings.host}.",
            hint="Make one with `reelsense key create NAME --scope ...`; in a network that nobody else reaches, "
            "set REELSENSE_TRUSTED_NETWORK=true.",
        )
