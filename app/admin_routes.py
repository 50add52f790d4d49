"""The HTTP API of administrators, under `/api/v1`: what `reelsense queue`, `workers`, `videos` and their like do.

Every route needs the admin scope (`app.admin_access`).
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from app import dead_letters
from app.admin_access import AdminAccess
from app.administration import Administrator
from app.operations import ReelSense
from store.administration import LONGEST_REASON, Actor
from store.dead_letters import DeadLetter

Reason = Annotated[str, Body(embed=True, max_length=LONGEST_REASON)]
K = Annotated[int, Query(ge=1, le=10_000)]


class Letters(BaseModel):
    """Which dead letters: by id, by filters, or every one."""

    model_config = ConfigDict(extra="forbid")
    ids: list[str] = Field(default_factory=list, max_length=1000)
    every: bool = False
    stage: str | None = None
    code: str | None = None
    video: str | None = None

    def of(self, reelsense: ReelSense) -> list[DeadLetter]:
        """The letters that are meant. Raises `dead.unknown`, `request.invalid`."""
        return dead_letters.chosen(reelsense, self.ids, self.every, self.stage, self.code, self.video)


def admin_routes(reelsense: ReelSense, access: AdminAccess) -> APIRouter:
    """The routes over one installation."""
    router = APIRouter(tags=["administration"])

    def administrator(actor: Actor = Depends(access.http)) -> Administrator:  # noqa: B008
        return Administrator(reelsense, actor)

    admin = Depends(administrator)
    _queue_routes(router, admin)
    _worker_routes(router, admin)
    _video_routes(router, admin)
    return router


def _queue_routes(router: APIRouter, admin: Any) -> None:
    @router.get("/queues")
    def queues(by: Administrator = admin) -> dict[str, Any]:
        """Every queue: depth, age, rates, whether it is paused."""
        return by.queues()

    @router.get("/queues/{name}")
    def queue(name: str, by: Administrator = admin) -> dict[str, Any]:
        """One queue: what runs, what waits longest, its failures."""
        return by.queue(name)

    @router.post("/queues/{name}/pause")
    def pause(name: str, reason: Reason = "", by: Administrator = admin) -> dict[str, Any]:
        """Let no run begin until it is resumed."""
        return by.pause(name, reason)

    @router.post("/queues/{name}/resume")
    def resume(name: str, by: Administrator = admin) -> dict[str, Any]:
        """Take a pause back."""
        return by.resume(name)

    @router.post("/queues/{name}/purge")
    def purge(name: str, dry_run: bool = False, by: Administrator = admin) -> dict[str, Any]:
        """Cancel what waits; with `dry_run=true` only say how much that is."""
        return by.purge(name, dry_run=dry_run)

    @router.post("/queues/{name}/restore")
    def restore(name: str, by: Administrator = admin) -> dict[str, Any]:
        """Take a purge back."""
        return by.restore(name)

    @router.get("/dead/reasons")
    def reasons(by: Administrator = admin) -> dict[str, Any]:
        """Failed and dead runs by stage and code."""
        return by.failures()

    @router.post("/dead/reasons/{stage}/{code}/replay")
    def replay(stage: str, code: str, by: Administrator = admin) -> dict[str, Any]:
        """Try again the runs of a stage that ended with a code."""
        return by.replay(stage, code)

    @router.get("/dead")
    def dead(
        stage: str | None = None, code: str | None = None, video: str | None = None, by: Administrator = admin
    ) -> dict[str, Any]:
        """The dead letters, the latest first."""
        return dead_letters.listed(by.reelsense, stage, code, video)

    @router.get("/dead/{letter}")
    def dead_letter(letter: str, by: Administrator = admin) -> dict[str, Any]:
        """One dead letter with its traceback and its last log lines."""
        return dead_letters.shown(by.reelsense, letter)

    @router.post("/dead/replay")
    def replay_dead(chosen: Letters, dry_run: bool = False, by: Administrator = admin) -> dict[str, Any]:
        """Try dead letters again, with all their attempts."""
        return dead_letters.replayed(by, chosen.of(by.reelsense), dry_run=dry_run)

    @router.post("/dead/drop")
    def drop_dead(chosen: Letters, dry_run: bool = False, by: Administrator = admin) -> dict[str, Any]:
        """Put dead letters out of sight; their videos stay failed."""
        return dead_letters.dropped(by, chosen.of(by.reelsense), dry_run=dry_run)

    @router.get("/audit")
    def audit(k: K = 50, about: str | None = None, by: Administrator = admin) -> dict[str, Any]:
        """The latest decisions, newest first."""
        return by.audit(k, about)


def _worker_routes(router: APIRouter, admin: Any) -> None:
    @router.get("/workers")
    def workers(by: Administrator = admin) -> dict[str, Any]:
        """Every worker: what it does, its queues, memory and threads."""
        return by.workers()

    @router.post("/workers/scale")
    def scale(
        least: Annotated[int | None, Body()] = None,
        most: Annotated[int | None, Body()] = None,
        by: Administrator = admin,
    ) -> dict[str, Any]:
        """How many workers the embedded stack runs: `least`, or from `least` to `most`; neither: as by settings."""
        return by.scale(least, most)

    @router.post("/workers/{name}/drain")
    def drain(name: str, by: Administrator = admin) -> dict[str, Any]:
        """Let a worker finish, take no more, and leave."""
        return by.drain(name)

    @router.post("/workers/{name}/pool")
    def pool(name: str, processes: Annotated[int, Body(embed=True)], by: Administrator = admin) -> dict[str, Any]:
        """How many stages one worker runs at a time."""
        return by.pool(name, processes)


def _video_routes(router: APIRouter, admin: Any) -> None:
    @router.delete("/videos/{video}")
    def delete(video: str, by: Administrator = admin) -> dict[str, Any]:
        """Delete a video everywhere, for good; the proof. What viewers did with it stays theirs."""
        from app.deleting import delete as delete_everywhere

        return delete_everywhere(by, video)

    @router.get("/videos/{video}/timeline")
    def timeline(video: str, by: Administrator = admin) -> dict[str, Any]:
        """What happened to a video."""
        return by.timeline(video)

    @router.post("/videos/{video}/prioritise")
    def prioritise(video: str, off: bool = False, by: Administrator = admin) -> dict[str, Any]:
        """Run what waits of a video before all else."""
        return by.prioritise(video, off=off)

    @router.post("/videos/{video}/cancel")
    def cancel(video: str, by: Administrator = admin) -> dict[str, Any]:
        """Cancel what waits of a video, and what would come after it."""
        return by.cancel(video)

    @router.post("/videos/{video}/retry")
    def retry(video: str, by: Administrator = admin) -> dict[str, Any]:
        """Try again what failed or was cancelled of a video."""
        return by.retry(video)

    @router.post("/videos/{video}/quarantine")
    def quarantine(video: str, reason: Reason = "", by: Administrator = admin) -> dict[str, Any]:
        """Set a video aside: not processed, not shown."""
        return by.quarantine(video, reason)

    @router.post("/videos/{video}/release")
    def release(video: str, by: Administrator = admin) -> dict[str, Any]:
        """Take a video out of quarantine."""
        return by.release(video)
