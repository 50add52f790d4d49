"""Who was forgotten: a keyed hash of the viewer's name and the time up to which nothing of theirs may come back.

The name itself stands nowhere. The key is made at random when the first viewer is forgotten, and is kept with the
tombstones in the database and in object storage (`journal/forgotten/`), because a catalogue that is made anew from
object storage must know whom to leave out. So the hash keeps the name from whoever sees a tombstone, a log or a proof
without the key; who can read the whole store can test a name that he guesses.

There may be several keys (two processes that began at once; a database that met another's bucket): each is an object
of its own and is never overwritten, new tombstones are made under the first by name, and all are looked for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from store.catalogue import Catalogue, _insert
from store.objects import ObjectStore
from store.own_tables import create_tables, transaction

PREFIX = "journal/forgotten/"
KEYS = f"{PREFIX}key-"
_CHUNK = 5_000

tables = sa.MetaData()
forgotten = sa.Table(
    "forgotten_viewers",
    tables,
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("forgotten_at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)
keys = sa.Table(
    "forgotten_key",
    tables,
    sa.Column("name", sa.String(8), primary_key=True),
    sa.Column("value", sa.String(64), nullable=False),
)


@dataclass(frozen=True)
class Tombstone:
    """`digest` of the name under the key; events up to `until` stay away; both times in seconds since the epoch."""

    digest: str
    until: float
    forgotten_at: float


class Tombstones:
    """The tombstones of one installation. Errors: `database.unavailable`, `store.unavailable`, which may pass."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        create_tables(catalogue, tables)

    def until(self, connection: sa.Connection, users: Collection[str]) -> dict[str, float]:
        """For each of these viewers who was forgotten, the time up to which nothing of theirs may come back."""
        if connection.execute(sa.select(forgotten.c.sequence).limit(1)).first() is None:
            return {}
        named = {digest_of(key, user): user for key in _keys(connection) for user in sorted(users)}
        digests = sorted(named)
        found: dict[str, float] = {}
        for start in range(0, len(digests), _CHUNK):
            chunk = digests[start : start + _CHUNK]
            for row in connection.execute(sa.select(forgotten).where(forgotten.c.digest.in_(chunk))):
                user = named[row.digest]
                found[user] = max(row.until, found.get(user, row.until))
        return found

    def until_of(self, user_id: str) -> float | None:
        """The time up to which nothing of this viewer may come back; None for one who was not forgotten."""
        with transaction(self.catalogue) as connection:
            return self.until(connection, [user_id]).get(user_id)

    def latest(self) -> int:
        """A number that rises whenever somebody is forgotten: what is kept in memory of viewers is then out of date."""
        with transaction(self.catalogue) as connection:
            return connection.execute(sa.select(sa.func.max(forgotten.c.sequence))).scalar_one_or_none() or 0

    def put(self, connection: sa.Connection, user_id: str, until: float, now: float) -> None:
        """Set a tombstone. There must be a key (`prepare`)."""
        self._put(connection, Tombstone(digest_of(_keys(connection)[0], user_id), until, now))

    def _put(self, connection: sa.Connection, stone: Tombstone) -> None:
        # A viewer who is forgotten again gets a new row, so that `latest` rises.
        old = connection.execute(
            sa.select(forgotten.c.until).where(forgotten.c.digest == stone.digest)
        ).scalar_one_or_none()
        if old is not None:
            connection.execute(sa.delete(forgotten).where(forgotten.c.digest == stone.digest))
        connection.execute(
            sa.insert(forgotten).values(
                digest=stone.digest, until=max(stone.until, old or 0.0), forgotten_at=stone.forgotten_at
            )
        )

    def prepare(self, objects: ObjectStore) -> None:
        """Make sure that there is a key, and that database and object storage hold the same ones."""
        stored = {
            item.key: json.loads(objects.get(item.key))["key"] for item in objects.list(PREFIX) if _is_key(item.key)
        }
        with transaction(self.catalogue) as connection:
            for value in stored.values() if stored or _keys(connection) else [secrets.token_hex(32)]:
                row = {"name": _name_of(value), "value": value}
                connection.execute(_insert(connection, keys).values(row).on_conflict_do_nothing())
            known = _keys(connection)
        for value in known:
            if (name := f"{KEYS}{_name_of(value)}.json") not in stored:
                objects.put(name, json.dumps({"key": value}).encode())

    def save(self, objects: ObjectStore, user_id: str) -> str:
        """Copy the viewer's tombstone to object storage; its key there."""
        with transaction(self.catalogue) as connection:
            digest = digest_of(_keys(connection)[0], user_id)
            row = connection.execute(sa.select(forgotten).where(forgotten.c.digest == digest)).one()
        name = f"{PREFIX}{row.digest}.json"
        stone = {"digest": row.digest, "until": row.until, "forgotten_at": row.forgotten_at}
        objects.put(name, json.dumps(stone, sort_keys=True).encode())
        return name

    def restore(self, objects: ObjectStore) -> int:
        """Bring key and tombstones from object storage into the catalogue: how many were new."""
        listed = [item.key for item in objects.list(PREFIX)]
        if not listed:
            return 0
        self.prepare(objects)
        added = 0
        for key in listed:
            if _is_key(key):
                continue
            stone = Tombstone(**json.loads(objects.get(key)))
            with transaction(self.catalogue) as connection:
                there = connection.execute(
                    sa.select(forgotten.c.until).where(forgotten.c.digest == stone.digest)
                ).scalar_one_or_none()
                if there is None or there < stone.until:
                    self._put(connection, stone)
                    added += 1
        return added


def _keys(connection: sa.Connection) -> list[str]:
    """The keys, the first by name first."""
    return list(connection.execute(sa.select(keys.c.value).order_by(keys.c.name)).scalars())


def _is_key(name: str) -> bool:
    return name.startswith(KEYS)


def _name_of(key: str) -> str:
    """What tells keys apart and says nothing of them."""
    return hashlib.sha256(b"name of " + key.encode()).hexdigest()[:8]


def digest_of(key: str, user_id: str) -> str:
    """64 hex digits: HMAC-SHA256 of the viewer's name."""
    return hmac.new(bytes.fromhex(key), user_id.encode(), hashlib.sha256).hexdigest()
