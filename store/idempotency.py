"""Requests that carry a key of their sender's, so that one that is sent again is done once: what was answered, by key.

A row is made before the work, so two that come at once do not both do it. One whose process died is taken over when it
has been silent for `LEASE_SECONDS`. All times are seconds since the epoch (UTC).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import sqlalchemy as sa
from pydantic import BaseModel

from store.catalogue import Catalogue, _insert
from store.errors import InputError
from store.own_tables import create_tables, transaction

LEASE_SECONDS = 120.0
KEPT_SECONDS = 86_400.0

tables = sa.MetaData()
requests = sa.Table(
    "idempotent_requests",
    tables,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("begun_at", sa.Float, nullable=False, index=True),
    sa.Column("status", sa.Integer),
    sa.Column("headers", sa.Text, nullable=False, default="{}"),
    sa.Column("body", sa.LargeBinary, nullable=False, default=b""),
)


class Answered(BaseModel):
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class IdempotentRequests:
    """The rows of one catalogue. Every method is one transaction. Errors: `database.unavailable`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        create_tables(catalogue, tables)

    def begin(self, request: str, fingerprint: str) -> Answered | None:
        """Take the request (None), or what was answered to it. `request` is a digest of sender, address and key,
        `fingerprint` one of its content. Raises `request.key_reused`, `request.in_progress`."""
        now = time.time()
        with transaction(self.catalogue) as connection:
            connection.execute(sa.delete(requests).where(requests.c.begun_at < now - KEPT_SECONDS))
            insert = _insert(connection, requests).values(
                id=request, fingerprint=fingerprint, begun_at=now, headers="{}", body=b""
            )
            if connection.execute(insert.on_conflict_do_nothing()).rowcount == 1:
                return None
            row = connection.execute(sa.select(requests).where(requests.c.id == request)).one()
            if row.fingerprint != fingerprint:
                raise InputError(
                    "request.key_reused",
                    "This Idempotency-Key was sent with another request before.",
                    hint="Send a new key with a new request.",
                )
            if row.status is not None:
                return Answered(status=row.status, headers=json.loads(row.headers), body=row.body)
            taken = connection.execute(
                sa.update(requests)
                .where(requests.c.id == request, requests.c.status.is_(None))
                .where(requests.c.begun_at == row.begun_at, requests.c.begun_at < now - LEASE_SECONDS)
                .values(begun_at=now)
            ).rowcount
        if taken == 1:
            return None
        raise InputError("request.in_progress", "A request with this Idempotency-Key is being answered right now.")

    def finish(self, request: str, answered: Answered) -> None:
        """Keep what was answered."""
        values = {"status": answered.status, "headers": json.dumps(dict(answered.headers)), "body": answered.body}
        with transaction(self.catalogue) as connection:
            connection.execute(sa.update(requests).where(requests.c.id == request).values(**values))

    def drop(self, request: str) -> None:
        """It came to nothing: it may be tried again."""
        with transaction(self.catalogue) as connection:
            connection.execute(sa.delete(requests).where(requests.c.id == request, requests.c.status.is_(None)))
