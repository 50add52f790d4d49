"""Re-embedding jobs over HTTP, under `/api/v1/jobs`: what `reelsense reembed` does, for the admin scope."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from app import reembedding
from app.admin_access import AdminAccess
from app.administration import Administrator
from app.operations import ReelSense
from app.problems import asked_for
from store.administration import Actor
from store.overrides import parsed
from workers.reembedding import Request

Partial = Annotated[bool, Query(description="Though some videos are absent until the sweep has made them.")]


class JobRequest(BaseModel):
    """What a job is to do; see `reelsense reembed start`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"stages": ["vision"], "model_set": "standard", "where": "region = 'DE'"}]},
    )
    stages: list[str] = Field(default_factory=list, max_length=32, description="Empty: whatever changes.")
    model_set: str | None = Field(None, max_length=64)
    settings: dict[str, str] = Field(default_factory=dict, max_length=32, description="Settings by name.")
    where: str = Field("", max_length=10_000, description="A filter of videos.")
    rate: float | None = Field(None, gt=0, description="Most videos a second.")
    concurrency: int | None = Field(None, ge=1, description="Most videos under way.")
    dry_run: bool = Field(False, description="Only plan.")


def reembed_routes(reelsense: ReelSense, access: AdminAccess) -> APIRouter:
    """The routes over one installation."""
    router = APIRouter(prefix="/jobs", tags=["re-embedding"])

    def administrator(actor: Actor = Depends(access.http)) -> Administrator:  # noqa: B008
        return Administrator(reelsense, actor)

    admin = Depends(administrator)

    @router.get("")
    def jobs(by: Administrator = admin) -> dict[str, Any]:
        """Every job, and how far it is."""
        return reembedding.listed(by.reelsense)

    @router.post("", status_code=201)
    def start(asked: JobRequest, by: Administrator = admin) -> dict[str, Any]:
        """Plan a job and start it; with `dry_run` only plan."""
        with asked_for():
            overrides = parsed([f"{name}={value}" for name, value in asked.settings.items()])
            request = Request(
                tuple(asked.stages), asked.model_set, overrides, asked.where, asked.rate, asked.concurrency
            )
            return reembedding.start(by, request, dry_run=asked.dry_run)

    @router.post("/rollback")
    def rollback(job: str | None = None, partial: Partial = False, by: Administrator = admin) -> dict[str, Any]:
        """Serve again what was served before the last switch, or before the switch to `job`."""
        return reembedding.rolled_back(by, job, partial=partial)

    @router.post("/gc")
    def gc(dry_run: bool = False, by: Administrator = admin) -> dict[str, Any]:
        """Delete artifacts of versions that nobody needs."""
        return reembedding.collected(by, dry_run=dry_run)

    @router.get("/{job}")
    def show(job: str, by: Administrator = admin) -> dict[str, Any]:
        """One job: progress, rate, remaining time, failures, what its sample said."""
        return reembedding.shown(by.reelsense, job)

    @router.post("/{job}/switch")
    def switch(job: str, partial: Partial = False, by: Administrator = admin) -> dict[str, Any]:
        """Serve what a complete job made, for everybody at once."""
        return reembedding.switched(by, job, partial=partial)

    @router.post("/{job}/{what}")
    def change(job: str, what: Literal["pause", "resume", "cancel"], by: Administrator = admin) -> dict[str, Any]:
        """Pause, resume or cancel a job."""
        return reembedding.changed(by, job, what)

    return router
