"""Training as a job, for pages and API: which there are, how far each is, starting one and ending one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from store.batch_jobs import BatchJob, BatchJobs

if TYPE_CHECKING:
    from app.administration import Administrator
    from app.operations import ReelSense


def listed(reelsense: ReelSense) -> dict[str, Any]:
    """Every job, the latest first."""
    return {"jobs": [row_of(job) for job in BatchJobs(reelsense.catalogue).jobs()]}


def row_of(job: BatchJob) -> dict[str, Any]:
    """A job, how far it is, and how long it may still take: `remaining_seconds` goes by what its present attempt took
    so far, and is None before there is anything to go by. A model that stops early is done sooner."""
    said = job.progress
    done, most = said.get("done", 0), said.get("most", 0)
    remaining = None
    if job.state == "running" and job.started_at is not None and 0 < done <= most:
        remaining = round((time.time() - job.started_at) * (most - done) / done, 1)
    return job.model_dump() | {
        "model": str(job.request.get("model", "")),
        "done": done,
        "most": most,
        "judged": said.get("judged"),
        "remaining_seconds": remaining,
    }


def started(admin: Administrator, model: str, *, promote: bool) -> dict[str, Any]:
    """Ask a training worker to train a model on this installation's events. Raises `ranker.no_such_model`,
    `stack.not_running`."""
    from app.ranker_training import submitted

    job = submitted(admin.reelsense, model, None, {}, promote=promote, who=admin.actor.who)
    admin.note("training.start", job["id"], {"model": model, "promote": promote})
    return job


def cancelled(admin: Administrator, job_id: str) -> dict[str, Any]:
    """End a job for good. Raises `job.unknown`, `job.wrong_state`."""
    job = BatchJobs(admin.reelsense.catalogue).cancel(job_id)
    admin.note("training.cancel", job.id, {"model": str(job.request.get("model", ""))})
    return row_of(job)
