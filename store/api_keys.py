"""API keys: who may ask what over HTTP. A table of its own in the catalogue's database.

A key reads `rsk_ID_SECRET`. `ID` (12 hex digits) is public: it names the row, stands in listings, and tells keys apart.
`SECRET` is 256 random bits, shown once. Stored is the SHA-256 of the whole key: a slow password hash defends words that
people choose against guessing; nobody guesses one of 2**256, so a plain hash is as safe, and costs a request
microseconds instead of a tenth of a second. Digests are compared in constant time.

Rows are never deleted. So once there was a key the API stays closed: revoking the last one does not open it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from typing import Literal, get_args

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from store.catalogue import Catalogue
from store.errors import InputError, NotFoundError, ReelsenseError
from store.own_tables import create_tables, transaction

Scope = Literal["upload", "read", "recommend", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
NAME_LENGTH = 100
# How exact `last_used_at` is: a write for every request would make readers wait for each other.
USED_SECONDS = 60.0
_KEY = re.compile(r"rsk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")

tables = sa.MetaData()
api_keys = sa.Table(
    "api_keys",
    tables,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("name", sa.String(NAME_LENGTH), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("scopes", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("last_used_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
)


class AccessError(ReelsenseError):
    """The request may not be made: `access.*`."""


class ApiKey(BaseModel):
    """A row of `api_keys` without its digest. Times: seconds since the epoch; `last_used_at` exact to a minute."""

    model_config = ConfigDict(frozen=True)
    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None


class ApiKeys:
    """The keys of one installation."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._seen = False
        create_tables(catalogue, tables)

    def create(self, name: str, scopes: Sequence[str], expires_days: float | None = None) -> tuple[ApiKey, str]:
        """A new key and its text, which nobody can read again. Raises `request.invalid`."""
        name = name.strip()
        if not name or len(name) > NAME_LENGTH or not name.isprintable():
            raise InputError("request.invalid", f"A key's name has 1 to {NAME_LENGTH} printable characters.")
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            said = f"There is no scope {unknown[0]!r}." if unknown else "A key needs at least one scope."
            raise InputError("request.invalid", said, hint=f"Scopes: {', '.join(SCOPES)}.")
        if expires_days is not None and not 0 < expires_days <= 36_500:
            raise InputError("request.invalid", "A key lives more than 0 and at most 36500 days.")
        now = time.time()
        key = ApiKey(
            id=secrets.token_hex(6),
            name=name,
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            created_at=now,
            expires_at=None if expires_days is None else now + expires_days * 86_400,
        )
        text = f"rsk_{key.id}_{secrets.token_urlsafe(32)}"
        with transaction(self.catalogue) as connection:
            connection.execute(
                sa.insert(api_keys).values(
                    **key.model_dump(exclude={"scopes"}), scopes=" ".join(key.scopes), digest=_digest(text)
                )
            )
        return key, text

    def all(self) -> list[ApiKey]:
        """Every key that ever was, oldest first."""
        with transaction(self.catalogue) as connection:
            rows = connection.execute(sa.select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)).all()
        return [_key(row) for row in rows]

    def exist(self) -> bool:
        """Whether there ever was a key, be it revoked or expired."""
        if not self._seen:
            with transaction(self.catalogue) as connection:
                self._seen = connection.execute(sa.select(api_keys.c.id).limit(1)).first() is not None
        return self._seen

    def revoke(self, key_id: str) -> ApiKey:
        """From now on the key opens nothing. Raises `access.key_unknown`."""
        with transaction(self.catalogue) as connection:
            connection.execute(
                sa.update(api_keys)
                .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=time.time())
            )
            row = connection.execute(sa.select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
        if row is None:
            raise NotFoundError(
                "access.key_unknown", f"There is no API key {key_id[:64]!r}.", hint="`reelsense key ls` lists them."
            )
        return _key(row)

    def check(self, text: str, now: float | None = None) -> ApiKey:
        """The key that this text is. Raises `access.key_invalid`, `access.key_expired`."""
        at = time.time() if now is None else now
        match = _KEY.fullmatch(text)
        if match is None:
            raise AccessError("access.key_invalid", "This is no API key.")
        with transaction(self.catalogue) as connection:
            row = connection.execute(sa.select(api_keys).where(api_keys.c.id == match[1])).one_or_none()
        # An unknown id is compared too, so that the time taken says nothing.
        same = hmac.compare_digest(_digest(text), row.digest if row is not None else "0" * 64)
        if row is None or not same or row.revoked_at is not None:
            raise AccessError("access.key_invalid", "This API key is not known, or was revoked.")
        if row.expires_at is not None and row.expires_at <= at:
            raise AccessError("access.key_expired", f"The API key {row.id} has expired.")
        if row.last_used_at is None or row.last_used_at < at - USED_SECONDS:
            with transaction(self.catalogue) as connection:
                connection.execute(sa.update(api_keys).where(api_keys.c.id == row.id).values(last_used_at=at))
        return _key(row)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _key(row: sa.Row[tuple[object, ...]]) -> ApiKey:
    values = row._asdict()
    return ApiKey.model_validate({**values, "scopes": tuple(values["scopes"].split())})
