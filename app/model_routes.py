"""Models over HTTP, under `/api/v1`, for the admin scope: encoders and model sets, what was learnt from the catalogue,
trained rankers, and the jobs that train them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app import learnt_models, ranker_models
from app.admin_access import AdminAccess
from app.administration import Administrator
from app.operations import ReelSense
from app.problems import asked_for
from app.video_routes import answer
from reelsense.client import records
from store.administration import Actor
from store.batch_jobs import BatchJobs
from workers.plans import LearntModel

Ranker = Annotated[
    str, StringConstraints(min_length=1, max_length=200), Field(description="NAME/VERSION, its beginning, or NAME.")
]


class Promotion(BaseModel):
    """Which trained ranker is to be served."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"ranker": "bpr", "margin": 0.0}]})
    ranker: Ranker
    margin: float = Field(0.0, ge=0, le=1, allow_inf_nan=False, description="By how much more NDCG@10.")
    force: bool = Field(False, description="Though it is not better; its card says so.")


class Training(BaseModel):
    """What is to be trained; see `reelsense train ranker`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"model": "bpr", "promote": True}]})
    model: str = Field(min_length=1, max_length=64)
    seed: int | None = Field(None, ge=0, lt=2**32)
    settings: dict[str, str] = Field(default_factory=dict, max_length=64, description="Settings of the model by name.")
    promote: bool = Field(False, description="Serve it, if it is better than what is served.")


class LearntChoice(BaseModel):
    """Which version of a learnt model is to be served."""

    model_config = ConfigDict(extra="forbid")
    version: str = Field(min_length=1, max_length=64)


def model_routes(reelsense: ReelSense, access: AdminAccess) -> APIRouter:
    """The routes over one installation."""
    router = APIRouter()

    def administrator(actor: Actor = Depends(access.http)) -> Administrator:  # noqa: B008
        return Administrator(reelsense, actor)

    admin = Depends(administrator)
    _models(router, admin)
    _training(router, admin)
    return router


def _models(router: APIRouter, admin: Any) -> None:
    @router.get("/models", tags=["models"], responses=answer(records.Models))
    def models(by: Administrator = admin) -> dict[str, Any]:
        """Every encoder with its weights, digest and licence; what is served; and what was learnt from the catalogue,
        with its `role`: served, next (in the making), or kept. Another model set is brought in by a job (`POST
        /jobs`), and goes by `POST /jobs/JOB/switch` and `POST /jobs/rollback`."""
        return learnt_models.listed(by.reelsense)

    @router.post("/models/{name}/promote", tags=["models"])
    def promote_learnt(name: LearntModel, chosen: LearntChoice, by: Administrator = admin) -> dict[str, Any]:
        """Bring in a kept topic model or fusion: what it makes new is computed, and it is served when all is there."""
        return learnt_models.promote(by, name, chosen.version)

    @router.post("/models/{name}/rollback", tags=["models"])
    def rollback_learnt(name: LearntModel, by: Administrator = admin) -> dict[str, Any]:
        """Take back what is in the making; else bring in what was learnt before the served one, or none."""
        return learnt_models.rollback(by, name)

    @router.get("/rankers", tags=["models"])
    def rankers(by: Administrator = admin) -> dict[str, Any]:
        """Every trained ranker, newest first, with its role: champion, previous or challenger."""
        return ranker_models.listed(by.reelsense)

    @router.post("/rankers/promote", tags=["models"])
    def promote(chosen: Promotion, by: Administrator = admin) -> dict[str, Any]:
        """Serve a trained ranker if it is better than the champion on what was held back from it."""
        document = ranker_models.promote(by.reelsense, chosen.ranker, margin=chosen.margin, force=chosen.force)
        by.note("ranker.promote", document["champion"], {"previous": document["previous"]})
        return document

    @router.post("/rankers/rollback", tags=["models"])
    def rollback(by: Administrator = admin) -> dict[str, Any]:
        """Serve what was served before the last switch, which may be no trained ranker at all."""
        document = ranker_models.rollback(by.reelsense)
        by.note("ranker.rollback", document["champion"] or "", {"previous": document["previous"]})
        return document


def _training(router: APIRouter, admin: Any) -> None:
    @router.get("/training", tags=["jobs"], responses=answer(records.Jobs))
    def jobs(
        limit: Annotated[int, Query(ge=1, le=1000, description="The latest so many.")] = 100,
        by: Administrator = admin,
    ) -> dict[str, Any]:
        """Jobs that train, the latest first, and how far they are."""
        found = BatchJobs(by.reelsense.catalogue).jobs()
        return {"jobs": [job.model_dump() for job in found[:limit]]}

    @router.post("/training", tags=["jobs"], status_code=201)
    def train(asked: Training, by: Administrator = admin) -> dict[str, Any]:
        """Let a worker of the queue `training` train a ranker."""
        from app.ranker_training import parsed_settings, submitted

        with asked_for():
            given = parsed_settings([f"{name}={value}" for name, value in asked.settings.items()])
            document = submitted(by.reelsense, asked.model, asked.seed, given, promote=asked.promote)
        by.note("train.start", document["id"], {"model": asked.model})
        return document

    @router.get("/training/{job}", tags=["jobs"])
    def job(job: str, by: Administrator = admin) -> dict[str, Any]:
        """One of them: what was asked, how far it is, what came of it."""
        return BatchJobs(by.reelsense.catalogue).job(job).model_dump()

    @router.post("/training/{job}/cancel", tags=["jobs"])
    def cancel(job: str, by: Administrator = admin) -> dict[str, Any]:
        """End one for good; what runs stops at its next step, and its checkpoint stays."""
        ended = BatchJobs(by.reelsense.catalogue).cancel(job)
        by.note("train.cancel", ended.id, {})
        return ended.model_dump()
