"""Re-embedding as an operation: what commands and the HTTP API ask for, as JSON documents. Who changes something
stands in the job's own history and in the audit log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from store.jobs import Job
from workers import garbage, reembedding
from workers.reembedding import Request

if TYPE_CHECKING:
    from app.administration import Administrator
    from app.operations import ReelSense

RATE_SECONDS = 600.0
SHOWN_FAILURES = 20


def start(admin: Administrator, request: Request, *, dry_run: bool) -> dict[str, Any]:
    """Plan a job and, unless it is a dry run, note it. Raises what `workers.reembedding.start` raises."""
    reelsense = admin.reelsense
    planned = reembedding.plan_job(reelsense.graph, request)
    if dry_run:
        return planned.document
    job = reembedding.start(reelsense.graph, request, admin.actor.who, planned)
    admin.note("reembed.start", job.id, {"stages": job.stages, "overrides": job.overrides, "where": job.where})
    return planned.document | {"job": job.id, "state": job.state, "broker": bool(reelsense.settings.broker)}


def listed(reelsense: ReelSense) -> dict[str, Any]:
    """Every job, the oldest first."""
    return {"jobs": [_row(reelsense, job) for job in reelsense.graph.jobs.jobs()]}


def shown(reelsense: ReelSense, job_id: str) -> dict[str, Any]:
    """One job: its plan, how far it is and how fast, its failures, what its sample said, who did what."""
    jobs = reelsense.graph.jobs
    job = jobs.job(job_id)
    own = reembedding.own_versions(reelsense.graph, job)
    return _row(reelsense, job) | {
        "plan": job.plan,
        "overrides": job.overrides,
        "concurrency": job.concurrency,
        "rate_limit": job.rate,
        "canary": job.canary,
        "validation": job.validation,
        "shards": {state: len(jobs.shards(job.id, (state,))) for state in ("waiting", "sent", "done")},
        "under_way": len({run.video_id for run in jobs.under_way(own)}),
        "failures": [
            {"video": run.video_id, "stage": run.stage, "code": run.error_code, "message": run.error_message}
            for run in jobs.failures(own, SHOWN_FAILURES)
        ],
        "history": job.history,
    }


def _row(reelsense: ReelSense, job: Job) -> dict[str, Any]:
    totals = reelsense.graph.jobs.totals(job.id)
    rate = videos_per_second(job)
    left = max(0, totals.missing)
    return {
        "job": job.id,
        "state": job.state,
        "stages": job.stages,
        "where": job.where,
        "videos": totals.videos,
        "done": totals.done,
        "failed": totals.failed,
        "per_second": rate,
        "remaining_seconds": round(left / rate, 1) if rate and job.state == "running" else None,
        "reason": job.reason or None,
        "started_by": job.started_by,
        "created_at": job.created_at,
    }


def videos_per_second(job: Job) -> float | None:
    """How many videos became done a second over the last minutes, None before it is known."""
    recent = [point for point in job.progress if point[0] > time.time() - RATE_SECONDS] or job.progress[-2:]
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return None
    return round((recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0]), 4)


def changed(admin: Administrator, job_id: str, what: str) -> dict[str, Any]:
    """`pause`, `resume` or `cancel` a job. Raises `job.wrong_state`."""
    reelsense = admin.reelsense
    job = reelsense.graph.jobs.job(job_id)
    act = {"pause": reembedding.pause, "resume": reembedding.resume, "cancel": reembedding.cancel}[what]
    job = act(reelsense.graph, job, admin.actor.who)
    admin.note(f"reembed.{what}", job.id, {})
    return _row(reelsense, job)


def switched(admin: Administrator, job_id: str, *, partial: bool) -> dict[str, Any]:
    """Serve what a job made. Raises `job.incomplete`, `job.wrong_state`."""
    reelsense = admin.reelsense
    job = reelsense.graph.jobs.job(job_id)
    job, census = reembedding.switch(reelsense.graph, job, admin.actor.who, partial=partial)
    admin.note("reembed.switch", job.id, {"partial": partial})
    return _row(reelsense, job) | {"census": census, "served": _served(reelsense)}


def rolled_back(admin: Administrator, job_id: str | None, *, partial: bool) -> dict[str, Any]:
    """Serve again what was served before the last switch. Raises `job.incomplete`, `job.wrong_state`."""
    reelsense = admin.reelsense
    job = None if job_id is None else reelsense.graph.jobs.job(job_id)
    rolled, census = reembedding.rollback(reelsense.graph, job, admin.actor.who, partial=partial)
    admin.note("reembed.rollback", rolled.id, {"partial": partial})
    return _row(reelsense, rolled) | {"census": census, "served": _served(reelsense)}


def _served(reelsense: ReelSense) -> dict[str, Any]:
    choices = reelsense.catalogue.choices()
    return {
        "encoding": choices.get("encoding", ""),
        "overrides": reelsense.graph.jobs.overrides(choices.get("encoding", "")),
        "versions": dict(reelsense.graph.versions),
    }


def collected(admin: Administrator, *, dry_run: bool) -> dict[str, Any]:
    """Versions that nobody needs: what would go, or what went. Raises `job.unsafe`."""
    graph = admin.reelsense.graph
    found = garbage.garbage(graph) if dry_run else garbage.collect(graph)
    if found and not dry_run:
        admin.note("reembed.gc", "", {"versions": [entry["version"] for entry in found]})
    return {
        "deleted": not dry_run,
        "artifacts": sum(entry["artifacts"] for entry in found),
        "bytes": sum(entry["bytes"] for entry in found),
        "versions": found,
    }
