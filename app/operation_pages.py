"""The page `/operations`: queues, workers, jobs, what failed, and who decided what, with buttons to pause, resume,
drain, switch and replay.

Plain HTML and forms; it works without script, and a few lines of script of its own (`operations.js`) renew the tables
every five seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from app import reembedding
from app.admin_access import AdminAccess
from app.administration import Administrator
from app.operations import ReelSense
from app.site import HEADERS, Site, html
from store.administration import LONGEST_REASON, Actor
from store.errors import InputError, ReelsenseError

AUDIT_ROWS = 20
# What can be done with a job in each state.
CHANGES = {
    "planned": ("pause", "cancel"),
    "canary": ("pause", "cancel"),
    "running": ("pause", "cancel"),
    "paused": ("resume", "cancel"),
    "complete": ("switch", "cancel"),
}


def operation_pages(site: Site, access: AdminAccess) -> APIRouter:
    """The page of one installation, its partial, and its forms."""
    reelsense = site.reelsense
    # Forms of other sites are refused before anything of them is read.
    router = site.router("/operations")

    def page(request: Request, error: ReelsenseError | None = None) -> Response:
        seen = _seen(reelsense, access.page(request)) | {"error": error}
        return site.page(request, "operations.html", seen, 200 if error is None else 422)

    def act(request: Request, what: Any, anchor: str) -> Response:
        """Do something for an administrator, and show the page again: what was done stands in its audit log."""
        by = Administrator(reelsense, access.page(request))
        try:
            what(by)
        except ReelsenseError as error:
            return page(request, error)
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

    @router.post("/jobs/{job}/{what}")
    def change(request: Request, job: str, what: Literal["pause", "resume", "cancel", "switch"]) -> Response:
        if what == "switch":
            return act(request, lambda by: reembedding.switched(by, job, partial=False), "jobs")
        return act(request, lambda by: reembedding.changed(by, job, what), "jobs")

    @router.post("/dead/{stage}/{code}/replay")
    def replay(request: Request, stage: str, code: str) -> Response:
        return act(request, lambda by: by.replay(stage, code), "dead")

    @router.post("/videos/{video}/release")
    def release(request: Request, video: str) -> Response:
        return act(request, lambda by: by.release(video), "aside")

    return router


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError("request.invalid", "How many processes? That is no number.") from None


def _seen(reelsense: ReelSense, actor: Actor) -> dict[str, Any]:
    by = Administrator(reelsense, actor)
    return {
        **by.queues(),
        **by.workers(),
        **by.failures(),
        "jobs": reembedding.listed(reelsense)["jobs"][::-1],
        "changes": CHANGES,
        **by.aside(),
        **by.audit(AUDIT_ROWS),
        "actor": actor,
    }
