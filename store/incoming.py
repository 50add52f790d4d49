"""What came in by itself: which objects were looked at, which have been announced, which direct uploads are open.

Three tables on the catalogue's engine. Losing them loses no video: what is still in the bucket is looked at again, and
the same content is the same video.

`incoming` has a row for each object in each state it was seen in: its *name* (digest of its key, which may be of any
form) and its *stamp* (changes when it is written again). A row is *claimed* before any work, which counts the attempt,
as runs are in the catalogue. All times are seconds since the epoch.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel

from store.catalogue import Catalogue
from store.errors import ReelsenseError
from store.foreign_objects import ForeignObject
from store.records import Metadata

# free: may be claimed; taking: somebody is at it; taken: it is a video; refused: it is none; words: a sidecar, read.
State = Literal["free", "taking", "taken", "refused", "words"]
# open: an address was handed out; completed: all is there, says the client; expired: never completed.
PresignedState = Literal["open", "completed", "taken", "refused", "expired"]
ENDED = ("taken", "refused", "words")
MOST_IN_QUERY = 500

tables = sa.MetaData()

incoming = sa.Table(
    "incoming",
    tables,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("stamp", sa.String(200), primary_key=True),
    sa.Column("stem", sa.String(64), nullable=False, index=True),
    # As bytes: a key may hold what a database's text may not.
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(8), nullable=False, index=True),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("holder", sa.String(200)),
    sa.Column("seen_at", sa.Float, nullable=False, index=True),
    sa.Column("beat_at", sa.Float),
    sa.Column("video_id", sa.String(32)),
    sa.Column("error_code", sa.String(64)),
    sa.Column("error_message", sa.Text),
    sa.Column("put_away", sa.Boolean, nullable=False, default=False),
)

hints = sa.Table(
    "incoming_hints",
    tables,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("due_at", sa.Float, nullable=False, index=True),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
)

presigned = sa.Table(
    "presigned_uploads",
    tables,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("state", sa.String(10), nullable=False, index=True),
    sa.Column("file_name", sa.String(255), nullable=False, default=""),
    sa.Column("metadata", sa.Text),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("video_id", sa.String(32)),
    sa.Column("error_code", sa.String(64)),
    sa.Column("error_message", sa.Text),
)


class Seen(BaseModel):
    """A row of `incoming`. `put_away`: the object was removed, or moved, as the settings say."""

    key: str
    stamp: str
    bytes: int
    state: State
    attempts: int
    holder: str | None
    seen_at: float
    video_id: str | None
    error_code: str | None
    error_message: str | None
    put_away: bool


class PresignedUpload(BaseModel):
    """A row of `presigned_uploads`. `metadata` is known from the completion on."""

    id: str
    state: PresignedState
    file_name: str
    metadata: Metadata | None
    created_at: float
    video_id: str | None
    error_code: str | None
    error_message: str | None


def name_of(key: str) -> str:
    """The name of a key of any form: the SHA-256 of its bytes, in hex."""
    return hashlib.sha256(_bytes(key)).hexdigest()


class IncomingLedger:
    """The tables, over the catalogue's engine. Each method is one transaction. Errors: `database.unavailable`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        with self.catalogue._database():
            try:
                tables.create_all(catalogue.engine)
            except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
                tables.create_all(catalogue.engine)  # two processes made them at the same moment

    @contextlib.contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        with self.catalogue._begin() as connection:
            yield connection

    # --- objects -----------------------------------------------------------------------------------------------------

    def known(self, items: Sequence[ForeignObject]) -> dict[tuple[str, str], tuple[State, bool]]:
        """State and `put_away` of those of `items` that have a row, by (key, stamp)."""
        keys = {name_of(item.key): item.key for item in items}
        found: dict[tuple[str, str], tuple[State, bool]] = {}
        names = list(keys)
        with self._begin() as connection:
            for start in range(0, len(names), MOST_IN_QUERY):
                query = sa.select(incoming.c.name, incoming.c.stamp, incoming.c.state, incoming.c.put_away).where(
                    incoming.c.name.in_(names[start : start + MOST_IN_QUERY])
                )
                for row in connection.execute(query):
                    found[keys[row.name], row.stamp] = (row.state, bool(row.put_away))
        return found

    def claim(self, item: ForeignObject, stem: str, holder: str, lease_seconds: float) -> int | None:
        """Take an object for `holder`, counting the attempt before any work: its number, from 1. None when it is not to
        be had: somebody else is at it, or it has been dealt with."""
        now = time.time()
        row = {
            "name": name_of(item.key),
            "stamp": item.stamp,
            "stem": name_of(stem),
            "key": _bytes(item.key),
            "bytes": item.bytes,
            "state": "free",
            "attempts": 0,
            "seen_at": now,
            "put_away": False,
        }
        with self._begin() as connection:
            connection.execute(_insert(connection, incoming).values(row).on_conflict_do_nothing())
            free = sa.or_(
                incoming.c.state == "free",
                sa.and_(incoming.c.state == "taking", incoming.c.beat_at < now - lease_seconds),
            )
            taken = connection.execute(
                sa.update(incoming)
                .where(_is(item), free)
                .values(state="taking", attempts=incoming.c.attempts + 1, holder=holder, beat_at=now)
                .returning(incoming.c.attempts)
            ).scalar_one_or_none()
        return None if taken is None else int(taken)

    def beat(self, item: ForeignObject, holder: str) -> None:
        """Renew the lease."""
        with self._begin() as connection:
            connection.execute(
                sa.update(incoming)
                .where(_is(item), incoming.c.state == "taking", incoming.c.holder == holder)
                .values(beat_at=time.time())
            )

    def release(self, item: ForeignObject, *, counted: bool) -> None:
        """Give it back. An attempt that failed for reasons outside the object does not count."""
        with self._begin() as connection:
            connection.execute(
                sa.update(incoming)
                .where(_is(item), incoming.c.state == "taking")
                .values(state="free", attempts=incoming.c.attempts - (0 if counted else 1))
            )

    def end(
        self, item: ForeignObject, state: State, *, video_id: str | None = None, error: ReelsenseError | None = None
    ) -> None:
        """What has become of it."""
        with self._begin() as connection:
            connection.execute(
                sa.update(incoming)
                .where(_is(item))
                .values(
                    state=state,
                    video_id=video_id,
                    error_code=error.code if error else None,
                    error_message=error.message if error else None,
                )
            )

    def note_put_away(self, item: ForeignObject) -> None:
        """The object is where it belongs."""
        with self._begin() as connection:
            connection.execute(sa.update(incoming).where(_is(item)).values(put_away=True))

    def seen(self, item: ForeignObject) -> Seen | None:
        """The row of an object as it is now, or None."""
        with self._begin() as connection:
            row = connection.execute(sa.select(incoming).where(_is(item))).one_or_none()
        return None if row is None else _seen(row)

    def of_video_file(self, key: str) -> list[Seen]:
        """Rows of the videos that a sidecar could mean which is called `key` without its ending: of that very name, or
        of that name and one more ending. Latest first."""
        name = name_of(key)
        query = (
            sa.select(incoming)
            .where(sa.or_(incoming.c.name == name, incoming.c.stem == name), incoming.c.state != "words")
            .order_by(incoming.c.seen_at.desc())
        )
        with self._begin() as connection:
            return [_seen(row) for row in connection.execute(query)]

    def latest(self, most: int) -> list[Seen]:
        """The rows of what was seen last, latest first."""
        query = sa.select(incoming).order_by(incoming.c.seen_at.desc(), incoming.c.name).limit(most)
        with self._begin() as connection:
            return [_seen(row) for row in connection.execute(query)]

    def counts(self) -> dict[str, int]:
        """How many rows are in each state."""
        query = sa.select(incoming.c.state, sa.func.count()).group_by(incoming.c.state).order_by(incoming.c.state)
        with self._begin() as connection:
            return {state: int(count) for state, count in connection.execute(query)}

    # --- hints -------------------------------------------------------------------------------------------------------

    def hint(self, keys: Sequence[str]) -> None:
        """Somebody says that there is something new under these keys."""
        with self._begin() as connection:
            for key in dict.fromkeys(keys):
                row = {"name": name_of(key), "key": _bytes(key), "due_at": time.time(), "tries": 0}
                insert = _insert(connection, hints).values(row)
                connection.execute(
                    insert.on_conflict_do_update(index_elements=["name"], set_={"due_at": row["due_at"], "tries": 0})
                )

    def due_hints(self, most: int) -> list[tuple[str, float]]:
        """Keys to look at now, longest waiting first, each with the time from which it was due."""
        query = sa.select(hints).where(hints.c.due_at <= time.time()).order_by(hints.c.due_at).limit(most)
        with self._begin() as connection:
            return [(_text(row.key), row.due_at) for row in connection.execute(query)]

    def drop_hint(self, key: str, due_at: float) -> None:
        """It was looked at. A hint that came again meanwhile stays."""
        with self._begin() as connection:
            connection.execute(sa.delete(hints).where(hints.c.name == name_of(key), hints.c.due_at == due_at))

    def put_off_hint(self, key: str, due_at: float, least_seconds: float) -> None:
        """Look again later: after `least_seconds`, then twice as long each time, up to ten minutes."""
        with self._begin() as connection:
            mine = sa.and_(hints.c.name == name_of(key), hints.c.due_at == due_at)
            tries = connection.execute(sa.select(hints.c.tries).where(mine)).scalar_one_or_none()
            if tries is not None:
                wait = min(600.0, least_seconds * 2.0 ** min(tries, 20))
                connection.execute(sa.update(hints).where(mine).values(due_at=time.time() + wait, tries=tries + 1))

    def hints_waiting(self) -> int:
        """How many hints there are."""
        with self._begin() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(hints)).scalar_one())

    # --- direct uploads ----------------------------------------------------------------------------------------------

    def open_presigned(self, upload_id: str, file_name: str) -> None:
        """An address was handed out."""
        with self._begin() as connection:
            connection.execute(
                sa.insert(presigned).values(id=upload_id, state="open", file_name=file_name, created_at=time.time())
            )

    def presigned(self, upload_id: str) -> PresignedUpload | None:
        """The row of a direct upload, or None."""
        with self._begin() as connection:
            row = connection.execute(sa.select(presigned).where(presigned.c.id == upload_id)).one_or_none()
        if row is None:
            return None
        metadata = None if row.metadata is None else Metadata.model_validate_json(row.metadata)
        return PresignedUpload.model_validate(row._asdict() | {"metadata": metadata})

    def complete_presigned(self, upload_id: str, metadata: Metadata) -> bool:
        """The client says that all is there, and what it is. False when it said so before, or it has expired."""
        with self._begin() as connection:
            done = connection.execute(
                sa.update(presigned)
                .where(presigned.c.id == upload_id, presigned.c.state == "open")
                .values(state="completed", metadata=metadata.model_dump_json())
            )
        return bool(done.rowcount)

    def end_presigned(self, upload_id: str, video_id: str | None, error: ReelsenseError | None) -> None:
        """What has become of it."""
        with self._begin() as connection:
            connection.execute(
                sa.update(presigned)
                .where(presigned.c.id == upload_id)
                .values(
                    state="refused" if error else "taken",
                    video_id=video_id,
                    error_code=error.code if error else None,
                    error_message=error.message if error else None,
                )
            )

    def expire_presigned(self, seconds: float) -> int:
        """Close the direct uploads that were opened more than `seconds` ago and never completed; how many."""
        with self._begin() as connection:
            done = connection.execute(
                sa.update(presigned)
                .where(presigned.c.state == "open", presigned.c.created_at < time.time() - seconds)
                .values(state="expired")
            )
        return int(done.rowcount)


def _is(item: ForeignObject) -> sa.ColumnElement[bool]:
    return sa.and_(incoming.c.name == name_of(item.key), incoming.c.stamp == item.stamp)


def _seen(row: sa.Row[Any]) -> Seen:
    return Seen.model_validate(row._asdict() | {"key": _text(row.key)})


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _text(key: bytes) -> str:
    return bytes(key).decode("utf-8", "surrogateescape")


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    from store.catalogue import _insert as insert

    return insert(connection, table)
