"""The catalogue: which videos there are and how far each stage is.

SQLite on one machine, PostgreSQL on many.

Artifacts are the truth about what is done; the ledger here is about what is *under way*: it counts attempts before any
work begins (so that a video that kills its worker is noticed), holds the lease of the worker that runs a stage, and
keeps the error of what failed. Losing this database loses no artifact.

All times are seconds since the epoch (UTC).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel

from store.errors import InputError, NotFoundError, PassingError, ReelsenseError
from store.records import MediaInfo, Metadata

RunState = Literal["queued", "running", "done", "failed", "dead"]

tables = sa.MetaData()

videos = sa.Table(
    "videos",
    tables,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("revision", sa.String(16), nullable=False),
    sa.Column("file_name", sa.String(255), nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("media", sa.Text, nullable=False),
    sa.Column("uploaded_at", sa.Float, nullable=False, index=True),
)

runs = sa.Table(
    "runs",
    tables,
    sa.Column("video_id", sa.String(32), primary_key=True),
    sa.Column("stage", sa.String(32), primary_key=True),
    sa.Column("version", sa.String(32), primary_key=True),
    sa.Column("revision", sa.String(16), primary_key=True),
    sa.Column("state", sa.String(8), nullable=False, index=True),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("worker", sa.String(200)),
    sa.Column("queued_at", sa.Float),
    sa.Column("started_at", sa.Float),
    sa.Column("heartbeat_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("seconds", sa.Float),
    sa.Column("error_code", sa.String(64)),
    sa.Column("error_message", sa.Text),
    sa.Column("traceback", sa.Text),
)

publications = sa.Table(
    "publications",
    tables,
    # AUTOINCREMENT: a follower that has read up to n must never miss a reused number.
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("video_id", sa.String(32), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("revision", sa.String(16), nullable=False),
    sa.Column("published_at", sa.Float, nullable=False),
    sa.UniqueConstraint("video_id", "version", "revision"),
    sqlite_autoincrement=True,
)

choices = sa.Table(
    "choices",
    tables,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(64), nullable=False),
    sa.Column("chosen_at", sa.Float, nullable=False),
)


class Video(BaseModel):
    """A row of `videos`. `file_name` is what people called the upload: shown, never opened."""

    id: str
    revision: str
    file_name: str
    metadata: Metadata
    media: MediaInfo
    uploaded_at: float


class Run(BaseModel):
    """A row of `runs`: one stage of one video in one version."""

    video_id: str
    stage: str
    version: str
    revision: str
    state: RunState
    attempts: int
    worker: str | None = None
    queued_at: float | None = None
    started_at: float | None = None
    heartbeat_at: float | None = None
    finished_at: float | None = None
    seconds: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    traceback: str | None = None


class Publication(BaseModel):
    """A row of `publications`: the ranker follows them by `sequence`."""

    sequence: int
    video_id: str
    version: str
    revision: str
    published_at: float


class StoredEvent(BaseModel):
    """A row of `events` (`store.event_log`). `loops`: how often the video began anew; the texts name where it happened,
    empty: unknown."""

    sequence: int = 0
    id: str
    user_id: str
    video_id: str
    kind: str
    watched_seconds: float | None
    at: float
    loops: int | None = None
    session: str = ""
    device: str = ""
    os: str = ""
    network: str = ""
    region: str = ""
    language: str = ""


class RunKey(BaseModel, frozen=True):
    """What names a run: a stage of a video in a version; `revision` is empty where no written words go in."""

    video_id: str
    stage: str
    version: str
    revision: str


class Catalogue:
    """The catalogue database. Every method is one transaction. Errors: `database.unavailable`, which may pass."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sa.create_engine(parsed, connect_args={"timeout": 30})
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_immediate)
        else:
            if parsed.drivername == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            self.engine = sa.create_engine(parsed, pool_pre_ping=True)
        with self._database():
            _create_tables(self.engine)

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _database(self) -> Iterator[None]:
        try:
            yield
        except ReelsenseError:
            raise
        except sa.exc.DataError as error:
            # It answers: PostgreSQL keeps no text with a zero character in it, and no number beyond its columns.
            raise InputError(
                "request.invalid", "A text or number is not one that the catalogue database can hold."
            ) from error
        except (sa.exc.DatabaseError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
            raise PassingError(
                "database.unavailable",
                f"The catalogue database does not answer: {str(error.__cause__ or error).splitlines()[0]}.",
                hint="Check REELSENSE_DATABASE, the disk, and that the server runs.",
            ) from error

    @contextlib.contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        with self._database(), self.engine.begin() as connection:
            yield connection

    # --- videos ------------------------------------------------------------------------------------------------------

    def put_video(self, video: Video) -> None:
        """Insert the video, or give an old one its new words (`metadata`, `revision`)."""
        row = {
            "id": video.id,
            "revision": video.revision,
            "file_name": video.file_name,
            "metadata": video.metadata.model_dump_json(),
            "media": video.media.model_dump_json(),
            "uploaded_at": video.uploaded_at,
        }
        with self._begin() as connection:
            insert = _insert(connection, videos).values(row)
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["id"],
                    set_={"revision": insert.excluded.revision, "metadata": insert.excluded.metadata},
                )
            )

    def video(self, video_id: str) -> Video:
        """The video whose id is, or begins with, `video_id` (at least 4 characters). Raises `video.unknown`."""
        with self._begin() as connection:
            escaped = video_id.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            found = connection.execute(
                sa.select(videos).where(videos.c.id.like(escaped + "%", escape="\\")).order_by(videos.c.id).limit(2)
            ).all()
        if len(video_id) < 4 or not found:
            raise NotFoundError(
                "video.unknown", f"There is no video {video_id[:64]!r}.", hint="`reelsense status` lists them."
            )
        if len(found) > 1:
            raise NotFoundError(
                "video.unknown", f"More than one video begins with {video_id!r}.", hint="Give more of the id."
            )
        return _video(found[0])

    def videos(self, ids: Sequence[str] | None = None) -> list[Video]:
        """All videos, or those of `ids`, oldest upload first."""
        query = sa.select(videos).order_by(videos.c.uploaded_at, videos.c.id)
        if ids is not None:
            query = query.where(videos.c.id.in_(list(ids)))
        with self._begin() as connection:
            return [_video(row) for row in connection.execute(query)]

    # --- runs: the ledger --------------------------------------------------------------------------------------------

    def mark_queued(self, key: RunKey, now: float | None = None) -> None:
        """Note that a message for this run was sent. A running, dead or finished run stays what it is."""
        at = time.time() if now is None else now
        with self._begin() as connection:
            insert = _insert(connection, runs).values(**key.model_dump(), state="queued", attempts=0, queued_at=at)
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["video_id", "stage", "version", "revision"],
                    set_={"queued_at": at},
                    where=runs.c.state == "queued",
                )
            )

    def claim(self, key: RunKey, worker: str, lease_seconds: float, now: float | None = None) -> int | None:
        """Take the run for `worker`, counting the attempt *before* any work: the number of this attempt, from 1.

        None when it is not to be had: another worker holds a fresh lease, or the run is done, failed or dead.
        """
        at = time.time() if now is None else now
        with self._begin() as connection:
            insert = _insert(connection, runs).values(**key.model_dump(), state="queued", attempts=0, queued_at=at)
            connection.execute(insert.on_conflict_do_nothing())
            free = sa.or_(
                runs.c.state == "queued",
                sa.and_(runs.c.state == "running", runs.c.heartbeat_at < at - lease_seconds),
            )
            taken = connection.execute(
                sa.update(runs)
                .where(_is(key), free)
                .values(state="running", attempts=runs.c.attempts + 1, worker=worker, started_at=at, heartbeat_at=at)
                .returning(runs.c.attempts)
            ).scalar_one_or_none()
        return None if taken is None else int(taken)

    def beat(self, key: RunKey, worker: str) -> None:
        """Renew the lease of a running stage."""
        with self._begin() as connection:
            connection.execute(
                sa.update(runs)
                .where(_is(key), runs.c.state == "running", runs.c.worker == worker)
                .values(heartbeat_at=time.time())
            )

    def finish(self, key: RunKey, seconds: float | None) -> None:
        """The artifact exists. `seconds` is how long it took; None (found already there) keeps the old figure."""
        with self._begin() as connection:
            values: dict[str, Any] = {"state": "done", "error_code": None, "error_message": None, "traceback": None}
            now = time.time()
            if seconds is not None:
                values |= {"seconds": seconds, "finished_at": now}
            insert = _insert(connection, runs).values(
                **key.model_dump(), attempts=0, queued_at=now, **({"finished_at": now} | values)
            )
            connection.execute(
                insert.on_conflict_do_update(index_elements=["video_id", "stage", "version", "revision"], set_=values)
            )

    def release(self, key: RunKey, error: ReelsenseError, traceback: str | None = None) -> None:
        """Hand the run back to the queue after an error that may pass. The attempt does not count: its cause lies
        outside the video."""
        self._end(key, "queued", error, traceback, attempts=runs.c.attempts - 1, queued_at=time.time())

    def fail(self, key: RunKey, error: ReelsenseError, traceback: str | None = None, *, dead: bool = False) -> None:
        """End the run: `failed` when the input is at fault, `dead` when it was given up after too many attempts."""
        self._end(key, "dead" if dead else "failed", error, traceback)

    def _end(self, key: RunKey, state: RunState, error: ReelsenseError, traceback: str | None, **values: Any) -> None:
        with self._begin() as connection:
            connection.execute(
                sa.update(runs)
                .where(_is(key), runs.c.state != "done")
                .values(
                    state=state,
                    finished_at=time.time(),
                    error_code=error.code,
                    error_message=error.message,
                    traceback=traceback,
                    **values,
                )
            )

    def abandon(
        self, key: RunKey, *, counted: bool = True, worker: str | None = None, attempt: int | None = None
    ) -> None:
        """Take a running stage from a worker that is gone, or that gives it back untried (`counted` false); when given,
        only from that `worker` and in that `attempt`."""
        held = [runs.c.worker == worker] if worker is not None else []
        held += [runs.c.attempts == attempt] if attempt is not None else []
        with self._begin() as connection:
            connection.execute(
                sa.update(runs)
                .where(_is(key), runs.c.state == "running", *held)
                .values(state="queued", attempts=runs.c.attempts - (0 if counted else 1))
            )

    def forget(self, key: RunKey) -> None:
        """Drop the row of a run: its artifact is gone, so nothing is known of it."""
        with self._begin() as connection:
            connection.execute(sa.delete(runs).where(_is(key)))

    def reset(self, keys: Iterable[RunKey]) -> None:
        """Forget attempts and errors of failed and dead runs, so that they can be tried again."""
        with self._begin() as connection:
            for key in keys:
                connection.execute(
                    sa.update(runs)
                    .where(_is(key), runs.c.state.in_(["failed", "dead"]))
                    .values(state="queued", attempts=0, error_code=None, error_message=None, traceback=None)
                )

    def run(self, key: RunKey) -> Run | None:
        """The ledger's row of a run, or None."""
        with self._begin() as connection:
            row = connection.execute(sa.select(runs).where(_is(key))).one_or_none()
        return None if row is None else Run.model_validate(row._asdict())

    def runs(self, video_ids: Sequence[str] | None = None) -> list[Run]:
        """The rows of all runs, or those of some videos, sorted by key."""
        query = sa.select(runs).order_by(runs.c.video_id, runs.c.stage, runs.c.version, runs.c.revision)
        if video_ids is not None:
            query = query.where(runs.c.video_id.in_(list(video_ids)))
        with self._begin() as connection:
            return [Run.model_validate(row._asdict()) for row in connection.execute(query)]

    def claim_waiting(self, key: RunKey, worker: str, most: int) -> list[RunKey]:
        """Take at most `most` more runs that are queued for the stage and version of `key`, those queued longest first,
        as `claim` would. Their messages will find them taken. A run that was tried before is left to be tried alone."""
        found: list[RunKey] = []
        with self._begin() as connection:
            waiting = connection.execute(
                sa.select(runs.c.video_id, runs.c.stage, runs.c.version, runs.c.revision)
                .where(
                    runs.c.stage == key.stage,
                    runs.c.version == key.version,
                    runs.c.state == "queued",
                    runs.c.attempts == 0,
                )
                .order_by(runs.c.queued_at, runs.c.video_id)
                .limit(most)
            ).all()
            at = time.time()
            for row in waiting:
                other = RunKey.model_validate(row._asdict())
                # The condition is asked again: under PostgreSQL another worker may have been faster.
                taken = connection.execute(
                    sa.update(runs)
                    .where(_is(other), runs.c.state == "queued")
                    .values(
                        state="running", attempts=runs.c.attempts + 1, worker=worker, started_at=at, heartbeat_at=at
                    )
                    .returning(runs.c.attempts)
                ).scalar_one_or_none()
                if taken is not None:
                    found.append(other)
        return found

    # --- choices -----------------------------------------------------------------------------------------------------

    def choices(self) -> dict[str, str]:
        """What is chosen under each name, such as the version of the topic model that is served."""
        with self._begin() as connection:
            return {row.name: row.value for row in connection.execute(sa.select(choices).order_by(choices.c.name))}

    def choose(self, chosen: Mapping[str, str], *, instead_of: Sequence[str] = ()) -> None:
        """From now on choose these values by name, and nothing under the names of `instead_of`: all at once."""
        with self._begin() as connection:
            for name in instead_of:
                connection.execute(sa.delete(choices).where(choices.c.name == name))
            for name, value in sorted(chosen.items()):
                row = {"name": name, "value": value, "chosen_at": time.time()}
                insert = _insert(connection, choices).values(row)
                connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=row))

    # --- publications ------------------------------------------------------------------------------------------------

    def publish(self, video_id: str, version: str, revision: str) -> None:
        """Note the publication once; publishing again what is the latest changes nothing.

        A revision that was replaced and comes back gets a new sequence, so that followers see it come back.
        """
        same = sa.and_(publications.c.video_id == video_id, publications.c.version == version)
        with self._begin() as connection:
            latest = connection.execute(
                sa.select(publications.c.revision).where(same).order_by(publications.c.sequence.desc()).limit(1)
            ).scalar_one_or_none()
            if latest not in (None, revision):
                connection.execute(sa.delete(publications).where(same, publications.c.revision == revision))
            connection.execute(
                _insert(connection, publications)
                .values(video_id=video_id, version=version, revision=revision, published_at=time.time())
                .on_conflict_do_nothing()
            )

    def publications(self, version: str, after: int = 0) -> list[Publication]:
        """Publications of one version with a sequence above `after`, in order."""
        query = (
            sa.select(publications)
            .where(publications.c.version == version, publications.c.sequence > after)
            .order_by(publications.c.sequence)
        )
        with self._begin() as connection:
            return [Publication.model_validate(row._asdict()) for row in connection.execute(query)]


def _is(key: RunKey) -> sa.ColumnElement[bool]:
    return sa.and_(
        runs.c.video_id == key.video_id,
        runs.c.stage == key.stage,
        runs.c.version == key.version,
        runs.c.revision == key.revision,
    )


def _video(row: sa.Row[Any]) -> Video:
    return Video(
        id=row.id,
        revision=row.revision,
        file_name=row.file_name,
        metadata=Metadata.model_validate_json(row.metadata),
        media=MediaInfo.model_validate_json(row.media),
        uploaded_at=row.uploaded_at,
    )


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """An INSERT that knows ON CONFLICT, in the dialect of the connection."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert

        return postgresql_insert(table)
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table)


def _create_tables(engine: sa.Engine) -> None:
    try:
        tables.create_all(engine)
    except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
        # Two processes made the tables at the same moment; the loser looks again.
        tables.create_all(engine)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # SQLAlchemy begins transactions itself (see _begin_immediate), so the driver must not.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: sa.Connection) -> None:
    # A deferred transaction that reads first and writes later can fail with "database is locked" at once.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
