"""Re-embedding jobs in the catalogue's database: what a job is to make, how far each of its shards is, and which
*encoding* is served.

An encoding is a set of settings that differ from those of the installation (`{"encoders.vision": "..."}`), named by its
digest. The catalogue's choice `encoding` names the one that is served; without that choice the settings alone hold.

A job keeps books by *shard*, a range of video ids of at most `SHARD_VIDEOS` videos, and never by video: ten million
videos are a thousand rows here. Inside a shard a cursor says up to which id videos were sent.

All times are seconds since the epoch (UTC).
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, get_args

import sqlalchemy as sa
from pydantic import BaseModel, Field

from store.artifacts import digest
from store.catalogue import Catalogue, Run, RunKey, Video, _insert, _is, _video, choices, publications, runs, videos
from store.errors import InputError, NotFoundError, ReelsenseError
from store.filters import parse, to_sql

SHARD_VIDEOS = 10_000
ENCODING = "encoding"
HISTORY = 100

State = Literal["planned", "canary", "running", "paused", "complete", "switched", "rolled_back", "cancelled", "failed"]
STATES: tuple[State, ...] = get_args(State)
# Jobs whose plan workers follow.
OPEN: tuple[State, ...] = ("planned", "canary", "running", "paused", "complete")

job_tables = sa.MetaData()

encodings = sa.Table(
    "encodings",
    job_tables,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("overrides", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

reembed_jobs = sa.Table(
    "reembed_jobs",
    job_tables,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("state", sa.String(12), nullable=False, index=True),
    sa.Column("paused_from", sa.String(12), nullable=False, default=""),
    sa.Column("encoding", sa.String(16), nullable=False),
    sa.Column("previous", sa.String(16), nullable=False),
    sa.Column("stages", sa.Text, nullable=False),
    sa.Column("where", sa.Text, nullable=False),
    sa.Column("rate", sa.Float),
    sa.Column("concurrency", sa.Integer, nullable=False),
    sa.Column("videos", sa.BigInteger, nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("versions", sa.String(16), nullable=False),
    sa.Column("sample", sa.Text, nullable=False, default="[]"),
    sa.Column("canary", sa.Text, nullable=False, default="{}"),
    sa.Column("validation", sa.Text, nullable=False, default="{}"),
    sa.Column("reason", sa.Text, nullable=False, default="{}"),
    sa.Column("progress", sa.Text, nullable=False, default="[]"),
    sa.Column("history", sa.Text, nullable=False, default="[]"),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_by", sa.String(200), nullable=False),
    sa.Column("feeder", sa.String(200)),
    sa.Column("feeder_until", sa.Float, nullable=False, default=0.0),
    sa.Column("fed_at", sa.Float, nullable=False, default=0.0),
    sa.Column("last_started", sa.Float, nullable=False, default=0.0),
)

reembed_shards = sa.Table(
    "reembed_shards",
    job_tables,
    sa.Column("job", sa.String(16), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    # Ids above `after` up to and with `last`; `cursor` is the last id that was sent.
    sa.Column("after", sa.String(32), nullable=False),
    sa.Column("last", sa.String(32), nullable=False),
    sa.Column("cursor", sa.String(32), nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("videos", sa.Integer, nullable=False),
    sa.Column("done", sa.Integer, nullable=False, default=0),
    sa.Column("failed", sa.Integer, nullable=False, default=0),
)


class Shard(BaseModel):
    """A row of `reembed_shards`. `state`: `waiting`, `sent` (the cursor has reached its end), or `done`."""

    job: str
    number: int
    after: str
    last: str
    cursor: str
    state: Literal["waiting", "sent", "done"] = "waiting"
    videos: int
    done: int = 0
    failed: int = 0


class Job(BaseModel):
    """A row of `reembed_jobs`, and the `overrides` of the encoding that it brings in. `previous` is the encoding that
    was served when it began (empty: the settings alone); `stages` those that it makes anew, in the order of the graph;
    `rate` in videos a second; `concurrency` the most videos under way."""

    id: str
    state: State
    paused_from: str = ""
    encoding: str
    overrides: dict[str, Any]
    previous: str
    stages: list[str]
    where: str = ""
    rate: float | None = None
    concurrency: int
    videos: int
    plan: dict[str, Any] = Field(default_factory=dict)
    versions: str
    sample: list[str] = Field(default_factory=list)
    canary: dict[str, Any] = Field(default_factory=dict)
    validation: dict[str, Any] = Field(default_factory=dict)
    reason: dict[str, str] = Field(default_factory=dict)
    progress: list[tuple[float, int]] = Field(default_factory=list)
    history: list[dict[str, Any]] = Field(default_factory=list)
    created_at: float
    started_by: str
    feeder: str | None = None
    feeder_until: float = 0.0
    fed_at: float = 0.0
    last_started: float = 0.0


class Census(BaseModel):
    """Of the videos in a range: how many there are, how many have all that a plan makes (`done`), how many cannot have
    it because a stage of theirs failed (`failed`), and how many of the others came after the job had begun (`late`)."""

    videos: int = 0
    done: int = 0
    failed: int = 0
    late: int = 0

    @property
    def missing(self) -> int:
        """Those that the job has still to make. Late ones are made as any upload is, once the job is complete."""
        return self.videos - self.done - self.failed - self.late


class Target(BaseModel):
    """What a plan makes: the version of every stage, and those stages without which a video is not done (`ends`: those
    that changed and that no other changed stage needs), each with whether words go into it."""

    versions: dict[str, str]
    ends: dict[str, bool]


_JSON = ("stages", "plan", "sample", "canary", "validation", "reason", "progress", "history")


class Jobs:
    """The jobs over one catalogue. Every method is one transaction. Errors: `database.unavailable`, which may pass."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        with catalogue._database():
            try:
                job_tables.create_all(catalogue.engine)
            except (sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
                job_tables.create_all(catalogue.engine)  # two processes made them at once; the loser looks again

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return str(self.catalogue.engine.dialect.name)

    # --- jobs and encodings ------------------------------------------------------------------------------------------

    def create(self, job: Job, shards: Sequence[Shard]) -> None:
        """Note a job with its shards and its encoding, all at once. Raises `job.overlaps` where an open job makes some
        of the same stages and at least one video passes both filters."""
        condition = to_sql(parse(job.where), self.dialect)
        with self.catalogue._begin() as connection:
            if self.dialect == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("reembed_jobs"))))
            for row in connection.execute(sa.select(reembed_jobs).where(reembed_jobs.c.state.in_(OPEN))):
                if not set(json.loads(row.stages)) & set(job.stages):
                    continue
                other = to_sql(parse(row.where), self.dialect)
                if connection.execute(sa.select(videos.c.id).where(condition, other).limit(1)).first() is not None:
                    raise InputError(
                        "job.overlaps",
                        f"The open job {row.id} makes some of the same stages for some of the same videos.",
                        hint=f"`reelsense reembed cancel {row.id}`, or wait until it is switched.",
                    )
            text = _canonical(job.overrides)
            connection.execute(
                _insert(connection, encodings)
                .values(id=job.encoding, overrides=text, created_at=job.created_at)
                .on_conflict_do_nothing()
            )
            connection.execute(sa.insert(reembed_jobs).values(_row(job)))
            if shards:
                connection.execute(sa.insert(reembed_shards), [shard.model_dump() for shard in shards])

    def job(self, prefix: str) -> Job:
        """The job whose id is, or begins with, `prefix`. Raises `job.unknown`."""
        found = [job for job in self.jobs() if prefix and job.id.startswith(prefix)]
        if len(found) != 1:
            several = "More than one job begins with" if found else "There is no re-embedding job"
            raise NotFoundError("job.unknown", f"{several} {prefix[:64]!r}.", hint="`reelsense reembed ls` lists them.")
        return found[0]

    def jobs(self, states: Collection[str] = STATES) -> list[Job]:
        """The jobs in these states, oldest first."""
        query = (
            sa.select(reembed_jobs, encodings.c.overrides)
            .join(encodings, encodings.c.id == reembed_jobs.c.encoding)
            .where(reembed_jobs.c.state.in_(list(states)))
            .order_by(reembed_jobs.c.created_at, reembed_jobs.c.id)
        )
        with self.catalogue._begin() as connection:
            return [_job(row) for row in connection.execute(query)]

    def any_open(self) -> bool:
        """Whether there is a job to feed."""
        query = sa.select(reembed_jobs.c.id).where(reembed_jobs.c.state.in_(OPEN)).limit(1)
        with self.catalogue._begin() as connection:
            return connection.execute(query).first() is not None

    def overrides(self, encoding: str) -> dict[str, Any]:
        """The settings of an encoding; none for the empty name."""
        if not encoding:
            return {}
        with self.catalogue._begin() as connection:
            text = connection.execute(
                sa.select(encodings.c.overrides).where(encodings.c.id == encoding)
            ).scalar_one_or_none()
        if text is None:
            raise ReelsenseError("internal", f"The catalogue serves the encoding {encoding}, which it does not know.")
        found: dict[str, Any] = json.loads(text)
        return found

    def encodings(self) -> dict[str, dict[str, Any]]:
        """The settings of every encoding by its id."""
        with self.catalogue._begin() as connection:
            rows = connection.execute(sa.select(encodings).order_by(encodings.c.id)).all()
        return {row.id: json.loads(row.overrides) for row in rows}

    def know(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Note encodings that another database knew."""
        with self.catalogue._begin() as connection:
            for name, overrides in sorted(found.items()):
                row = {"id": name, "overrides": _canonical(overrides), "created_at": time.time()}
                connection.execute(_insert(connection, encodings).values(row).on_conflict_do_nothing())

    def open_encodings(self) -> tuple[tuple[str, str, bool], ...]:
        """For every open job its id, its encoding, and whether it is complete and covers every video."""
        query = (
            sa.select(reembed_jobs.c.id, reembed_jobs.c.state, reembed_jobs.c.encoding, reembed_jobs.c.where)
            .where(reembed_jobs.c.state.in_(OPEN))
            .order_by(reembed_jobs.c.created_at, reembed_jobs.c.id)
        )
        with self.catalogue._begin() as connection:
            rows = connection.execute(query).all()
        return tuple((row.id, row.encoding, row.state == "complete" and not row.where) for row in rows)

    def change(
        self, job: Job, allowed: Collection[str], state: State | None, what: str, who: str, **values: Any
    ) -> Job:
        """Bring a job into another state (None: keep it) and note who did what. Raises `job.wrong_state`."""
        changed = {name: json.dumps(value) if name in _JSON else value for name, value in values.items()}
        with self.catalogue._begin() as connection:
            self._change(connection, job.id, allowed, state, what, who, changed)
        return self.job(job.id)

    def _change(
        self,
        connection: sa.Connection,
        job_id: str,
        allowed: Collection[str],
        state: State | None,
        what: str,
        who: str,
        values: Mapping[str, Any],
    ) -> None:
        query = sa.select(reembed_jobs.c.state, reembed_jobs.c.history).where(reembed_jobs.c.id == job_id)
        row = connection.execute(query.with_for_update()).one()
        if row.state not in allowed:
            raise InputError(
                "job.wrong_state",
                f"The job {job_id} is {row.state}: it can be asked to {what} only when it is {' or '.join(allowed)}.",
                hint=f"`reelsense reembed show {job_id}` tells how far it is.",
            )
        if state == "paused":
            values = {**values, "paused_from": row.state}
        history = [*json.loads(row.history), {"at": time.time(), "who": who, "what": what}][-HISTORY:]
        connection.execute(
            sa.update(reembed_jobs)
            .where(reembed_jobs.c.id == job_id)
            .values(state=state or row.state, history=json.dumps(history), **values)
        )

    def serve(self, job: Job, encoding: str, allowed: Collection[str], state: State, what: str, who: str) -> Job:
        """Serve an encoding and bring the job into another state: both or neither. What was served until now is noted
        as `previous`. Raises `job.wrong_state`."""
        with self.catalogue._begin() as connection:
            now = sa.select(choices.c.value).where(choices.c.name == ENCODING)
            previous = connection.execute(now).scalar_one_or_none() or ""
            self._change(connection, job.id, allowed, state, what, who, {"previous": previous})
            connection.execute(sa.delete(choices).where(choices.c.name == ENCODING))
            if encoding:
                connection.execute(sa.insert(choices).values(name=ENCODING, value=encoding, chosen_at=time.time()))
        return self.job(job.id)

    def note(self, job_id: str, **values: Any) -> None:
        """Write down what a feeder has found, without a word in the history."""
        changed = {name: json.dumps(value) if name in _JSON else value for name, value in values.items()}
        with self.catalogue._begin() as connection:
            connection.execute(sa.update(reembed_jobs).where(reembed_jobs.c.id == job_id).values(**changed))

    def lease(self, job_id: str, feeder: str, seconds: float) -> bool:
        """Take or renew the right to feed a job: false while another feeder has it."""
        now = time.time()
        free = sa.or_(reembed_jobs.c.feeder == feeder, reembed_jobs.c.feeder_until < now)
        with self.catalogue._begin() as connection:
            taken = connection.execute(
                sa.update(reembed_jobs)
                .where(reembed_jobs.c.id == job_id, free)
                .values(feeder=feeder, feeder_until=now + seconds)
                .returning(reembed_jobs.c.id)
            ).first()
        return taken is not None

    # --- shards ------------------------------------------------------------------------------------------------------

    def shards(
        self, job_id: str, states: Collection[str] = ("waiting", "sent", "done"), most: int = 10_000
    ) -> list[Shard]:
        """The shards of a job in these states, in order, at most `most`."""
        query = (
            sa.select(reembed_shards)
            .where(reembed_shards.c.job == job_id, reembed_shards.c.state.in_(list(states)))
            .order_by(reembed_shards.c.number)
            .limit(most)
        )
        with self.catalogue._begin() as connection:
            return [Shard.model_validate(row._asdict()) for row in connection.execute(query)]

    def put_shard(self, shard: Shard) -> None:
        """Write a shard's cursor, state and counts."""
        with self.catalogue._begin() as connection:
            connection.execute(
                sa.update(reembed_shards)
                .where(reembed_shards.c.job == shard.job, reembed_shards.c.number == shard.number)
                .values(**shard.model_dump(include={"cursor", "state", "videos", "done", "failed"}))
            )

    def reopen(self, job_id: str) -> None:
        """Let every shard be gone through again: what is there is passed over."""
        with self.catalogue._begin() as connection:
            connection.execute(
                sa.update(reembed_shards)
                .where(reembed_shards.c.job == job_id)
                .values(state="waiting", cursor=reembed_shards.c.after)
            )

    def totals(self, job_id: str) -> Census:
        """The shards' counts, added up: of the videos that were there when each shard was last gone through."""
        columns = [sa.func.coalesce(sa.func.sum(reembed_shards.c[name]), 0) for name in ("videos", "done", "failed")]
        with self.catalogue._begin() as connection:
            found = connection.execute(sa.select(*columns).where(reembed_shards.c.job == job_id)).one()
        return Census(videos=found[0], done=found[1], failed=found[2])

    # --- the videos of a range ---------------------------------------------------------------------------------------

    def range_end(self, after: str, most: int) -> str | None:
        """The id of the last of the next `most` videos above `after`; None when there are none."""
        above = sa.select(videos.c.id).where(videos.c.id > after).order_by(videos.c.id)
        with self.catalogue._begin() as connection:
            last = connection.execute(above.offset(most - 1).limit(1)).scalar_one_or_none()
            if last is None:
                newest = sa.select(sa.func.max(videos.c.id)).where(videos.c.id > after)
                last = connection.execute(newest).scalar_one_or_none()
        return last

    def videos_between(
        self, after: str, last: str, where: str, most: int, lacking: Target | None = None
    ) -> list[Video]:
        """The next videos of a range that pass the filter, by id, at most `most`; with `lacking` only those that do not
        have all of it by the ledger."""
        query = sa.select(videos).where(self._within(after, last, where)).order_by(videos.c.id).limit(most)
        if lacking is not None:
            query = query.where(sa.not_(self._has_all(lacking)))
        with self.catalogue._begin() as connection:
            return [_video(row) for row in connection.execute(query)]

    def sizes(self, after: str, last: str, where: str) -> tuple[int, int]:
        """How many videos of a range pass the filter, and the bytes of their uploads."""
        if self.dialect == "postgresql":
            size: Any = sa.cast(sa.cast(videos.c.media, sa.JSON)["bytes"].as_string(), sa.BigInteger)
        else:
            size = sa.func.json_extract(videos.c.media, "$.bytes")
        query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(size), 0)).where(
            self._within(after, last, where)
        )
        with self.catalogue._begin() as connection:
            count, uploaded = connection.execute(query.select_from(videos)).one()
        return int(count), int(uploaded)

    def done_by_stage(self, after: str, last: str, where: str, versions: Mapping[str, str]) -> dict[str, int]:
        """For each stage how many videos of a range that pass the filter have it in its version by the ledger."""
        query = (
            sa.select(runs.c.stage, sa.func.count(sa.distinct(runs.c.video_id)))
            .where(
                runs.c.video_id > after,
                runs.c.video_id <= last,
                _looked_at_last(runs.c.state) == "done",
                runs.c.version.in_(sorted(versions.values())),
            )
            .group_by(runs.c.stage)
        )
        if where:
            condition = to_sql(parse(where), self.dialect)
            query = query.join(videos, videos.c.id == runs.c.video_id).where(condition)
        with self.catalogue._begin() as connection:
            return {stage: int(count) for stage, count in connection.execute(query)}

    def census(self, after: str, last: str, where: str, target: Target, begun: float) -> Census:
        """How far the videos of a range that pass the filter are; those uploaded after `begun` may be late."""
        state = sa.case(
            (self._has_all(target), "done"),
            (self._has_failed(target), "failed"),
            (videos.c.uploaded_at > begun, "late"),
            else_="missing",
        ).label("how_far")
        each = sa.select(state).select_from(videos).where(self._within(after, last, where)).subquery()
        query = sa.select(each.c.how_far, sa.func.count()).group_by(each.c.how_far)
        with self.catalogue._begin() as connection:
            found = {how_far: int(count) for how_far, count in connection.execute(query)}
        return Census(videos=sum(found.values()), **{name: found.get(name, 0) for name in ("done", "failed", "late")})

    def lacking(
        self, after: str, last: str, served: Target, target: Target, most: int, before: float | None = None
    ) -> tuple[int, list[str]]:
        """How many videos of a range (uploaded before a time) have all of `served` and not all of `target`, and the
        first ids."""
        condition = sa.and_(
            videos.c.id > after, videos.c.id <= last, self._has_all(served), sa.not_(self._has_all(target))
        )
        if before is not None:
            condition = sa.and_(condition, videos.c.uploaded_at < before)
        with self.catalogue._begin() as connection:
            count = connection.execute(sa.select(sa.func.count()).select_from(videos).where(condition)).scalar_one()
            first = connection.execute(sa.select(videos.c.id).where(condition).order_by(videos.c.id).limit(most))
            return int(count), list(first.scalars())

    def unsettled(self, ids: Sequence[str], target: Target) -> list[str]:
        """Those of some videos that neither have all of `target` nor cannot have it because a stage failed."""
        query = (
            sa.select(videos.c.id)
            .where(videos.c.id.in_(list(ids)), sa.not_(self._has_all(target)), sa.not_(self._has_failed(target)))
            .order_by(videos.c.id)
        )
        with self.catalogue._begin() as connection:
            return list(connection.execute(query).scalars())

    def done_between(self, after: str, most: int, target: Target) -> list[tuple[str, str]]:
        """(id, revision) of the next videos that have all of `target` by the ledger."""
        query = (
            sa.select(videos.c.id, videos.c.revision)
            .where(videos.c.id > after, self._has_all(target))
            .order_by(videos.c.id)
            .limit(most)
        )
        with self.catalogue._begin() as connection:
            return [(row.id, row.revision) for row in connection.execute(query)]

    def _within(self, after: str, last: str, where: str) -> sa.ColumnElement[bool]:
        return sa.and_(videos.c.id > after, videos.c.id <= last, to_sql(parse(where), self.dialect))

    def _has_all(self, target: Target) -> sa.ColumnElement[bool]:
        found: list[sa.ColumnElement[bool]] = [
            sa.exists(sa.literal(1))
            .where(
                runs.c.video_id == videos.c.id,
                runs.c.stage == stage,
                runs.c.version == target.versions[stage],
                runs.c.revision == (videos.c.revision if words else ""),
                runs.c.state == "done",
            )
            .correlate(videos)
            for stage, words in target.ends.items()
        ]
        if "published" in target.ends:
            found.append(
                sa.exists(sa.literal(1))
                .where(
                    publications.c.video_id == videos.c.id,
                    publications.c.version == target.versions["published"],
                    publications.c.revision == videos.c.revision,
                )
                .correlate(videos)
            )
        return sa.and_(sa.true(), *found)

    def _has_failed(self, target: Target) -> sa.ColumnElement[bool]:
        return (
            sa.exists(sa.literal(1))
            .where(
                runs.c.video_id == videos.c.id,
                _looked_at_last(runs.c.state).in_(["failed", "dead"]),
                runs.c.version.in_(sorted(target.versions.values())),
                runs.c.revision.in_(["", videos.c.revision]),
            )
            .correlate(videos)
        )

    # --- the ledger, as jobs see it ----------------------------------------------------------------------------------

    def under_way(self, versions: Collection[str]) -> list[Run]:
        """The runs of these versions that are queued or running."""
        query = sa.select(runs).where(runs.c.state.in_(["queued", "running"]), runs.c.version.in_(sorted(versions)))
        with self.catalogue._begin() as connection:
            return [Run.model_validate(row._asdict()) for row in connection.execute(query)]

    def failures(self, versions: Collection[str], most: int) -> list[Run]:
        """Runs of these versions that failed or were given up, the latest first."""
        query = (
            sa.select(runs)
            .where(runs.c.state.in_(["failed", "dead"]), runs.c.version.in_(sorted(versions)))
            .order_by(runs.c.finished_at.desc(), runs.c.video_id)
            .limit(most)
        )
        with self.catalogue._begin() as connection:
            return [Run.model_validate(row._asdict()) for row in connection.execute(query)]

    def uploads_wait(self, job_versions: Collection[str], lease_seconds: float) -> bool:
        """Whether any run that is no job's (whose version is none of `job_versions`) is queued, or running on a worker
        that still gives signs of life."""
        with self.catalogue._begin() as connection:
            return self._uploads_wait(connection, job_versions, lease_seconds)

    def _uploads_wait(self, connection: sa.Connection, job_versions: Collection[str], lease_seconds: float) -> bool:
        alive = sa.or_(runs.c.state == "queued", runs.c.heartbeat_at > time.time() - lease_seconds)
        query = sa.select(runs.c.video_id).where(
            runs.c.state.in_(["queued", "running"]), alive, runs.c.version.not_in(sorted(job_versions))
        )
        return connection.execute(query.limit(1)).first() is not None

    def may_start(
        self, job_id: str, key: RunKey, job_versions: Collection[str], lease_seconds: float, starve_seconds: float
    ) -> bool:
        """Whether a worker that holds the message of a run of this job may begin with it. Not while uploads wait or
        run, except that a job which has begun nothing for `starve_seconds` may begin one run. Where it may not, the run
        stays queued, marked as handed back (`queued_at` 0), and the feeder sends it again."""
        now = time.time()
        with self.catalogue._begin() as connection:
            mine = sa.and_(reembed_jobs.c.id == job_id, reembed_jobs.c.state.in_(["canary", "running", "complete"]))
            if self._uploads_wait(connection, job_versions, lease_seconds):
                mine = sa.and_(mine, reembed_jobs.c.last_started < now - starve_seconds)
            begun = connection.execute(
                sa.update(reembed_jobs).where(mine).values(last_started=now).returning(reembed_jobs.c.id)
            ).first()
            if begun is None:
                connection.execute(sa.update(runs).where(_is(key), runs.c.state == "queued").values(queued_at=0.0))
        return begun is not None

    def forget_queued(self, versions: Collection[str]) -> None:
        """Drop the queued runs of these versions: nobody wants them any more."""
        with self.catalogue._begin() as connection:
            condition = sa.and_(runs.c.state == "queued", runs.c.version.in_(sorted(versions)))
            connection.execute(sa.delete(runs).where(condition))

    def forget_versions(self, stage: str, version: str) -> None:
        """Drop what ledger and publications know of a version of a stage."""
        with self.catalogue._begin() as connection:
            connection.execute(sa.delete(publications).where(publications.c.version == version))
            connection.execute(sa.delete(runs).where(runs.c.stage == stage, runs.c.version == version))

    def published_only(self, after: str, last: str, version: str, served: Target) -> str | None:
        """A video of a range that is published in this version and lacks `served`, None when there is none."""
        there = (
            sa.exists(sa.literal(1))
            .where(
                publications.c.video_id == videos.c.id,
                publications.c.version == version,
                publications.c.revision == videos.c.revision,
            )
            .correlate(videos)
        )
        query = sa.select(videos.c.id).where(
            videos.c.id > after, videos.c.id <= last, there, sa.not_(self._has_all(served))
        )
        with self.catalogue._begin() as connection:
            return connection.execute(query.limit(1)).scalar_one_or_none()

    def seconds_of(self, stage: str, version: str | None, most: int = 500) -> list[float]:
        """How long a stage took for the `most` latest uploads, in one version or in any."""
        latest = sa.select(videos.c.id).order_by(videos.c.uploaded_at.desc()).limit(most).scalar_subquery()
        query = sa.select(runs.c.seconds).where(
            runs.c.video_id.in_(latest),
            runs.c.stage == stage,
            _looked_at_last(runs.c.state) == "done",
            runs.c.seconds.is_not(None),
        )
        if version is not None:
            query = query.where(runs.c.version == version)
        with self.catalogue._begin() as connection:
            return [float(value) for value in connection.execute(query).scalars()]


def _looked_at_last(column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """A column that the database must not look rows up by. SQLite knows no better than that few rows are `done`, would
    go through all of those for each range of ids, and planning would take the square of the time."""
    return sa.func.coalesce(column, "")


def encoding_id(overrides: Mapping[str, Any]) -> str:
    """The name of an encoding: empty for no overrides, else 16 hex digits."""
    return digest(dict(overrides)) if overrides else ""


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _row(job: Job) -> dict[str, Any]:
    values = job.model_dump(exclude={"overrides"})
    return {name: json.dumps(value) if name in _JSON else value for name, value in values.items()}


def _job(row: sa.Row[Any]) -> Job:
    values = row._asdict()
    return Job.model_validate(
        {name: json.loads(value) if name in (*_JSON, "overrides") else value for name, value in values.items()}
    )
