"""The ledger of uploads: what is being received, what waits to be taken in, and what became of it.

A table of its own in the catalogue's database, so that the counts of admission survive a restart and are one count for
every API process. The bytes lie in files of the API's machine (`app/upload_files.py`); how many have arrived is the
size of that file and stands nowhere else.

`receiving` (bytes arrive) -> `received` (all are there; it will be taken in, whatever happens) -> `taken` (it is a
video) or `refused` (it never can be one; why is in the error).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from store.catalogue import Catalogue, runs
from store.errors import ReelsenseError
from store.own_tables import create_tables, transaction

UploadState = Literal["receiving", "received", "taken", "refused"]
# Any number that no other advisory lock of this database has: admission looks and inserts as one.
_ADMISSION_LOCK = 0x7265656C

tables = sa.MetaData()
uploads = sa.Table(
    "uploads",
    tables,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("user_id", sa.String(64), nullable=False, index=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("length", sa.BigInteger),
    sa.Column("reserved", sa.BigInteger, nullable=False),
    sa.Column("unverified_from", sa.BigInteger),
    sa.Column("file_name", sa.String(255), nullable=False),
    sa.Column("words", sa.Text, nullable=False),
    sa.Column("header", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("touched_at", sa.Float, nullable=False),
    sa.Column("finished_at", sa.Float),
    sa.Column("video_id", sa.String(32), index=True),
    sa.Column("outcome", sa.String(16)),
    sa.Column("error_code", sa.String(64)),
    sa.Column("error_message", sa.Text),
    sa.Column("error_hint", sa.Text),
)


class Upload(BaseModel):
    """A row of `uploads`.

    `kind`: `tus` can be resumed, `form` lives in one request. `length`: bytes announced, None while deferred;
    `reserved`: bytes it counts for. `unverified_from`: bytes from there on came with a checksum that was not yet
    compared when their request ended, and do not count. `file_name`: what its sender calls it, to be shown; `words`:
    title and so on as JSON; `header`: Upload-Metadata as it came.
    """

    model_config = ConfigDict(frozen=True)
    id: str
    user_id: str
    kind: Literal["tus", "form"]
    state: UploadState = "receiving"
    length: int | None
    reserved: int
    unverified_from: int | None = None
    file_name: str = ""
    words: str = "{}"
    header: str = ""
    attempts: int = 0
    created_at: float
    touched_at: float
    finished_at: float | None = None
    video_id: str | None = None
    outcome: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_hint: str | None = None


@dataclass(frozen=True)
class Load:
    """What is under way: uploads in progress, their bytes (those waiting to be taken in too), videos in processing."""

    uploads: int
    bytes: int
    waiting: int


class UploadLedger:
    """The ledger of one installation. Every method is one transaction; all raise `database.unavailable`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        create_tables(catalogue, tables)

    def open(self, upload: Upload, check: Callable[[Load, Load], None]) -> None:
        """Insert the upload if `check(load of all, load of its user)` does not raise. Both are one step: a hundred
        clients at once do not get past a limit together."""
        with transaction(self.catalogue) as connection:
            _one_at_a_time(connection)
            check(_load(connection, None), _load(connection, upload.user_id))
            connection.execute(sa.insert(uploads).values(upload.model_dump()))

    def announce(self, upload: Upload, length: int) -> None:
        """The length of an upload that came without one."""
        self._update(upload.id, length=length, reserved=length)

    def load(self, user_id: str | None = None) -> Load:
        """What is under way, of all users or of one."""
        with transaction(self.catalogue) as connection:
            return _load(connection, user_id)

    def find(self, upload_id: str) -> Upload | None:
        """The upload, or None."""
        with transaction(self.catalogue) as connection:
            row = connection.execute(sa.select(uploads).where(uploads.c.id == upload_id)).one_or_none()
        return None if row is None else Upload.model_validate(row._asdict())

    def all(self, *states: UploadState, user_id: str | None = None) -> list[Upload]:
        """Uploads in these states (none given: in any), oldest first."""
        query = sa.select(uploads).order_by(uploads.c.created_at, uploads.c.id)
        if states:
            query = query.where(uploads.c.state.in_(states))
        if user_id is not None:
            query = query.where(uploads.c.user_id == user_id)
        with transaction(self.catalogue) as connection:
            return [Upload.model_validate(row._asdict()) for row in connection.execute(query)]

    def ended_before(self, when: float) -> list[Upload]:
        """Uploads whose end was before that time."""
        query = sa.select(uploads).where(uploads.c.finished_at < when)
        with transaction(self.catalogue) as connection:
            return [Upload.model_validate(row._asdict()) for row in connection.execute(query)]

    def touch(self, upload_id: str, unverified_from: int | None) -> None:
        """Bytes came. `unverified_from`: see `Upload`."""
        self._update(upload_id, touched_at=time.time(), unverified_from=unverified_from)

    def set_words(self, upload_id: str, file_name: str, words: str) -> None:
        """What the file is called, at most 255 characters; title, tags and so on."""
        self._update(upload_id, file_name=file_name, words=words)

    def received(self, upload_id: str, length: int) -> None:
        """All bytes are there. From here on nothing but an answer ends it."""
        with transaction(self.catalogue) as connection:
            connection.execute(
                sa.update(uploads)
                .where(uploads.c.id == upload_id, uploads.c.state == "receiving")
                .values(state="received", length=length, reserved=length, unverified_from=None, touched_at=time.time())
            )

    def attempt(self, upload_id: str) -> int:
        """Count a try to take it in, before the try: the number of this try, from 1."""
        with transaction(self.catalogue) as connection:
            return int(
                connection.execute(
                    sa.update(uploads)
                    .where(uploads.c.id == upload_id)
                    .values(attempts=uploads.c.attempts + 1)
                    .returning(uploads.c.attempts)
                ).scalar_one()
            )

    def attempt_did_not_count(self, upload_id: str) -> None:
        """The try failed for a cause outside the upload."""
        self._update(upload_id, attempts=uploads.c.attempts - 1)

    def finish(self, upload_id: str, video_id: str | None, outcome: str | None, error: ReelsenseError | None) -> None:
        """What became of it: a video (`taken`), or an error (`refused`)."""
        self._update(
            upload_id,
            state="refused" if video_id is None else "taken",
            finished_at=time.time(),
            video_id=video_id,
            outcome=outcome,
            error_code=error.code if error else None,
            error_message=error.message if error else None,
            error_hint=error.hint if error else None,
        )

    def forget(self, upload_id: str) -> None:
        """Drop the row, and with it what it counted for."""
        with transaction(self.catalogue) as connection:
            connection.execute(sa.delete(uploads).where(uploads.c.id == upload_id))

    def _update(self, upload_id: str, **values: Any) -> None:
        with transaction(self.catalogue) as connection:
            connection.execute(sa.update(uploads).where(uploads.c.id == upload_id).values(**values))


def _one_at_a_time(connection: sa.Connection) -> None:
    """SQLite's transactions begin IMMEDIATE, so only one runs; PostgreSQL needs to be told."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADMISSION_LOCK)))


def _load(connection: sa.Connection, user_id: str | None) -> Load:
    mine = sa.true() if user_id is None else uploads.c.user_id == user_id
    progress, size, received = connection.execute(
        sa.select(
            sa.func.count(sa.case((uploads.c.state == "receiving", 1))),
            sa.func.coalesce(sa.func.sum(uploads.c.reserved), 0),
            sa.func.count(sa.case((uploads.c.state == "received", 1))),
        ).where(uploads.c.state.in_(("receiving", "received")), mine)
    ).one()
    waiting = sa.select(sa.func.count(sa.distinct(runs.c.video_id))).where(runs.c.state.in_(("queued", "running")))
    if user_id is not None:
        waiting = waiting.where(runs.c.video_id.in_(sa.select(uploads.c.video_id).where(mine)))
    return Load(int(progress), int(size), int(received) + int(connection.execute(waiting).scalar_one()))
