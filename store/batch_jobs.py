"""Jobs that run once, as a whole, on some worker: what is asked for, who has it, how far it is, and what came of it.

The row is the truth and a broker's message only a hint, as with the stages of a video (`store.catalogue`): a worker
claims a job before it begins, renews its lease while it works, and a job whose worker fell silent is sent again.

    queued -> running -> done | failed        queued or running -> cancelled

All times are seconds since the epoch (UTC).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field

from store.catalogue import Catalogue
from store.errors import InputError, NotFoundError, ReelsenseError
from store.own_tables import create_tables, transaction

State = Literal["queued", "running", "done", "failed", "cancelled"]
OPEN: tuple[State, ...] = ("queued", "running")

tables = sa.MetaData()
batch_jobs = sa.Table(
    "batch_jobs",
    tables,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("state", sa.String(12), nullable=False, index=True),
    sa.Column("progress", sa.Text, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("error_code", sa.String(64)),
    sa.Column("error_message", sa.Text),
    sa.Column("worker", sa.String(200)),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("heartbeat_at", sa.Float),
    sa.Column("finished_at", sa.Float),
)
_JSON = ("request", "progress", "result")


class BatchJob(BaseModel):
    """A row. `request`: what the kind of job needs to know; `progress`: what its worker last said (`done` of `most`,
    and more); `result`: what came of it."""

    id: str
    kind: str
    request: dict[str, Any]
    state: State
    progress: dict[str, Any] = Field(default_factory=dict)
    result: dict[str, Any] = Field(default_factory=dict)
    error_code: str | None = None
    error_message: str | None = None
    worker: str | None = None
    attempts: int = 0
    created_by: str
    created_at: float
    started_at: float | None = None
    heartbeat_at: float | None = None
    finished_at: float | None = None


class BatchJobs:
    """The jobs of one catalogue. Every method is one transaction. Errors: `database.unavailable`, which may pass."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        create_tables(catalogue, tables)

    def create(self, kind: str, request: Mapping[str, Any], who: str) -> BatchJob:
        """Note a job that is to be done."""
        job = BatchJob(
            id=secrets.token_hex(8), kind=kind, request=dict(request), state="queued", created_by=who,
            created_at=time.time(),
        )  # fmt: skip
        values = job.model_dump()
        with transaction(self.catalogue) as connection:
            connection.execute(
                sa.insert(batch_jobs).values(values | {name: json.dumps(values[name]) for name in _JSON})
            )
        return job

    def jobs(self) -> list[BatchJob]:
        """All jobs, the latest first."""
        query = sa.select(batch_jobs).order_by(batch_jobs.c.created_at.desc(), batch_jobs.c.id)
        with transaction(self.catalogue) as connection:
            return [_job(row) for row in connection.execute(query)]

    def job(self, prefix: str) -> BatchJob:
        """The job whose id is, or begins with, `prefix`. Raises `job.unknown`."""
        found = [job for job in self.jobs() if prefix and job.id.startswith(prefix)]
        if len(found) != 1:
            several = "More than one job begins with" if found else "There is no job"
            raise NotFoundError("job.unknown", f"{several} {prefix[:64]!r}.", hint="`reelsense jobs` lists them.")
        return found[0]

    def any_open(self) -> bool:
        """Whether any job is queued or running."""
        query = sa.select(batch_jobs.c.id).where(batch_jobs.c.state.in_(OPEN)).limit(1)
        with transaction(self.catalogue) as connection:
            return connection.execute(query).first() is not None

    def abandoned(self, lease_seconds: float) -> list[BatchJob]:
        """Hand back the jobs whose worker fell silent, and give all jobs that are queued, oldest first."""
        with transaction(self.catalogue) as connection:
            silent = batch_jobs.c.heartbeat_at < time.time() - lease_seconds
            connection.execute(
                sa.update(batch_jobs).where(batch_jobs.c.state == "running", silent).values(state="queued", worker=None)
            )
            query = sa.select(batch_jobs).where(batch_jobs.c.state == "queued").order_by(batch_jobs.c.created_at)
            return [_job(row) for row in connection.execute(query)]

    def claim(self, job_id: str, worker: str) -> BatchJob | None:
        """Take a queued job, counting the attempt before any work; None when it is not to be had."""
        now = time.time()
        with transaction(self.catalogue) as connection:
            row = connection.execute(
                sa.update(batch_jobs)
                .where(batch_jobs.c.id == job_id, batch_jobs.c.state == "queued")
                .values(
                    state="running", worker=worker, attempts=batch_jobs.c.attempts + 1, started_at=now, heartbeat_at=now
                )
                .returning(*batch_jobs.c)
            ).one_or_none()
        return None if row is None else _job(row)

    def beat(self, job: BatchJob, progress: Mapping[str, Any] | None = None) -> bool:
        """Renew the lease of a claimed job, and say how far it is. False: it was cancelled, or another worker has it
        by now, and this one is to stop."""
        values: dict[str, Any] = {"heartbeat_at": time.time()}
        return self._end(job, values | ({} if progress is None else {"progress": json.dumps(dict(progress))}))

    def finish(self, job: BatchJob, result: Mapping[str, Any]) -> bool:
        """It is done. False where it was cancelled or taken away before."""
        return self._end(job, {"state": "done", "finished_at": time.time(), "result": json.dumps(dict(result))})

    def fail(self, job: BatchJob, error: ReelsenseError) -> bool:
        """It cannot be done."""
        values = {"state": "failed", "finished_at": time.time(), "error_code": error.code}
        return self._end(job, values | {"error_message": error.message})

    def release(self, job: BatchJob) -> bool:
        """Hand it back, to be begun again by whoever takes it; that attempt does not count."""
        return self._end(job, {"state": "queued", "worker": None, "attempts": batch_jobs.c.attempts - 1})

    def cancel(self, prefix: str) -> BatchJob:
        """End it for good: what runs stops at its next step. Raises `job.unknown`, `job.wrong_state`."""
        job = self.job(prefix)
        ended = sa.update(batch_jobs).where(batch_jobs.c.id == job.id, batch_jobs.c.state.in_(OPEN))
        with transaction(self.catalogue) as connection:
            done = connection.execute(ended.values(state="cancelled", finished_at=time.time())).rowcount
        if not done:
            raise InputError("job.wrong_state", f"The job {job.id} is {self.job(job.id).state} already.")
        return self.job(job.id)

    def _end(self, job: BatchJob, values: Mapping[str, Any]) -> bool:
        mine = (
            batch_jobs.c.id == job.id,
            batch_jobs.c.state == "running",
            batch_jobs.c.worker == job.worker,
            batch_jobs.c.started_at == job.started_at,
        )
        with transaction(self.catalogue) as connection:
            return bool(connection.execute(sa.update(batch_jobs).where(*mine).values(**values)).rowcount)


def _job(row: sa.Row[Any]) -> BatchJob:
    values = row._asdict()
    return BatchJob.model_validate(values | {name: json.loads(values[name]) for name in _JSON})
