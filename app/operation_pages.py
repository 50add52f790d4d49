"""The page `/operations`: queues, workers, jobs, models, what failed, and who decided what, with buttons to pause,
resume, drain, train, switch and replay.

Plain HTML and forms; it works without script, and a few lines of script of its own (`operations.js`) renew the tables
every few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from app import dead_letters, ranker_models, reembedding, training_jobs
from app.admin_access import AdminAccess
from app.administration import Administrator
from app.operations import ReelSense, title_of
from app.site import HEADERS, Site, html
from store.administration import LONGEST_REASON, Actor
from store.errors import InputError, ReelsenseError

AUDIT_ROWS = 20
LETTERS = 20
# What can be done with a job in each state.
CHANGES = {
    "planned": ("pause", "cancel"),
    "canary": ("pause", "cancel"),
    "running": ("pause", "cancel"),
    "paused": ("resume", "cancel"),
    "complete": ("switch", "cancel"),
}

Name = Annotated[str, Form(min_length=1, max_length=200)]
Setting = Annotated[str, Form(max_length=500)]
Act = Callable[[Request, Callable[[Administrator], Any], str], Response]


def operation_pages(site: Site, access: AdminAccess) -> APIRouter:
    """The page of one installation, its partial, and its forms."""
    reelsense = site.reelsense
    # Forms of other sites are refused before anything of them is read.
    router = site.router("/operations")

    def page(request: Request, error: ReelsenseError | None = None) -> Response:
        seen = _seen(reelsense, access.page(request)) | {"error": error}
        return site.page(request, "operations.html", seen, 200 if error is None else 422)

    def act(request: Request, what: Callable[[Administrator], Any], anchor: str) -> Response:
        """Do something for an administrator, and show the page again: what was done stands in its audit log. What
        answers with a page of its own is that page."""
        by = Administrator(reelsense, access.page(request))
        try:
            answer = what(by)
        except ReelsenseError as error:
            return page(request, error)
        if isinstance(answer, Response):
            return answer
        return RedirectResponse(f"/operations#{anchor}", 303, HEADERS)

    @router.get("")
    def operations(request: Request) -> Response:
        return page(request)

    @router.get("/live")
    def live(request: Request) -> Response:
        return html("live.html", _seen(reelsense, access.page(request)))

    @router.post("/queues/{name}/pause")
    def pause(request: Request, name: str, reason: Annotated[str, Form(max_length=LONGEST_REASON)] = "") -> Response:
        return act(request, lambda by: by.pause(name, reason), "queues")

    @router.post("/queues/{name}/resume")
    def resume(request: Request, name: str) -> Response:
        return act(request, lambda by: by.resume(name), "queues")

    @router.post("/workers/{name}/drain")
    def drain(request: Request, name: str) -> Response:
        return act(request, lambda by: by.drain(name), "workers")

    @router.post("/scale")
    def scale(request: Request, number: Annotated[str, Form(max_length=LONGEST_REASON)] = "") -> Response:
        return act(request, lambda by: by.scale(_number(number)), "workers")

    @router.post("/dead/{stage}/{code}/replay")
    def replay(request: Request, stage: str, code: str) -> Response:
        return act(request, lambda by: by.replay(stage, code), "dead")

    @router.get("/letters/{letter}")
    def letter(request: Request, letter: str) -> Response:
        access.page(request)
        found = dead_letters.shown(reelsense, letter)
        titles = _titles(reelsense, [found["video_id"]])
        return site.page(request, "letter.html", {"letter": found, "title": titles[found["video_id"]]})

    @router.post("/letters/{letter}/{what}")
    def decide(request: Request, letter: str, what: Literal["replay", "drop"]) -> Response:
        def done(by: Administrator) -> None:
            chosen = dead_letters.chosen(reelsense, [letter], False, None, None, None)
            if what == "drop":
                dead_letters.dropped(by, chosen, dry_run=False)
            elif dead_letters.replayed(by, chosen, dry_run=False)["stale"]:
                raise InputError("dead.unknown", "The run of this letter is of a version that is served no more.")

        return act(request, done, "dead")

    @router.post("/videos/{video}/release")
    def release(request: Request, video: str) -> Response:
        return act(request, lambda by: by.release(video), "aside")

    _job_pages(router, act)
    _model_pages(router, site, act)
    return router


def _job_pages(router: APIRouter, act: Act) -> None:
    @router.post("/training")
    def train(request: Request, model: Name, promote: Annotated[str, Form(max_length=3)] = "") -> Response:
        return act(request, lambda by: training_jobs.started(by, model, promote=promote == "yes"), "jobs")

    @router.post("/training/{job}/cancel")
    def cancel(request: Request, job: str) -> Response:
        return act(request, lambda by: training_jobs.cancelled(by, job), "jobs")

    @router.post("/jobs/{job}/{what}")
    def change(request: Request, job: str, what: Literal["pause", "resume", "cancel", "switch"]) -> Response:
        if what == "switch":
            return act(request, lambda by: reembedding.switched(by, job, partial=False), "jobs")
        return act(request, lambda by: reembedding.changed(by, job, what), "jobs")


def _model_pages(router: APIRouter, site: Site, act: Act) -> None:
    @router.post("/models/plan")
    def plan(request: Request, model_set: Name, setting: Setting = "") -> Response:
        def planned(by: Administrator) -> Response:
            found = reembedding.start(by, _wish(model_set, setting), dry_run=True)
            return site.page(request, "plan.html", {"model_set": model_set, "setting": setting, "plan": found})

        return act(request, planned, "models")

    @router.post("/models/start")
    def start(request: Request, model_set: Name, setting: Setting = "") -> Response:
        return act(request, lambda by: reembedding.start(by, _wish(model_set, setting), dry_run=False), "jobs")

    @router.post("/models/rollback")
    def back(request: Request) -> Response:
        return act(request, lambda by: reembedding.rolled_back(by, None, partial=False), "models")

    @router.post("/rankers/promote")
    def promote(request: Request, ranker: Name) -> Response:
        def promoted(by: Administrator) -> None:
            found = ranker_models.promote(site.reelsense, ranker)
            by.note("ranker.promote", found["champion"], {"previous": found["previous"]})

        return act(request, promoted, "models")

    @router.post("/rankers/rollback")
    def former(request: Request) -> Response:
        def rolled(by: Administrator) -> None:
            found = ranker_models.rollback(site.reelsense)
            by.note("ranker.rollback", found["champion"] or "none", {"previous": found["previous"]})

        return act(request, rolled, "models")


def _wish(model_set: str, setting: str) -> Any:
    from store.overrides import parsed
    from workers.reembedding import Request as Wish

    return Wish(model_set=model_set, overrides=parsed([setting] if setting.strip() else []))


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError("request.invalid", "How many processes? That is no number.") from None


def _seen(reelsense: ReelSense, actor: Actor) -> dict[str, Any]:
    from ranker.models.model import MODELS

    by = Administrator(reelsense, actor)
    letters = dead_letters.listed(reelsense, None, None, None)["dead"]
    return {
        **by.queues(),
        **by.workers(),
        **by.failures(),
        "jobs": reembedding.listed(reelsense)["jobs"][::-1],
        "training": training_jobs.listed(reelsense)["jobs"],
        "trainable": sorted(MODELS),
        "changes": CHANGES,
        "letters": letters,
        "most_letters": LETTERS,
        "titles": _titles(reelsense, [letter["video_id"] for letter in letters[:LETTERS]]),
        **_models(reelsense),
        **by.aside(),
        **by.audit(AUDIT_ROWS),
        "actor": actor,
    }


def _models(reelsense: ReelSense) -> dict[str, Any]:
    """What reads videos and what ranks them, and what was served before."""
    from encoders.built_in import MODEL_SETS
    from encoders.catalogue import chosen

    settings, choices = reelsense.served, reelsense.catalogue.choices()
    names = dict.fromkeys(spec.name for spec in chosen(settings).values())
    return {
        "served": {
            "model_set": settings.model_set,
            "encoding": choices.get("encoding", ""),
            "encoders": ", ".join(names),
        },
        "model_sets": list(MODEL_SETS),
        "rankers": ranker_models.listed(reelsense)["models"],
        "former_ranker": choices.get(ranker_models.PREVIOUS),
    }


def _titles(reelsense: ReelSense, videos: Iterable[str]) -> dict[str, str]:
    return {video.id: title_of(video) for video in reelsense.catalogue.videos(list(dict.fromkeys(videos)))}
