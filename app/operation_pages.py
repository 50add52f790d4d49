"""The page `/operations`: queues, workers, jobs, what failed, and who decided what, with buttons to pause, resume,
drain, switch and replay.

Plain HTML and forms, rendered here; it works without script, and a few lines of script of its own (`operations.js`)
renew the tables every five seconds. Nothing is loaded from another host, and the policy in its headers forbids it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import jinja2
from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app import reembedding
from app.admin_access import AdminAccess
from app.administration import Administrator
from app.operations import ReelSense
from app.queue_commands import clock, duration
from store.administration import LONGEST_REASON, Actor
from store.errors import InputError, ReelsenseError

PAGES = Path(__file__).parent / "pages"
AUDIT_ROWS = 20
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # With `no-referrer` browsers send `Origin: null` with a form, which looks like another site's.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
# What can be done with a job in each state.
CHANGES = {
    "planned": ("pause", "cancel"),
    "canary": ("pause", "cancel"),
    "running": ("pause", "cancel"),
    "paused": ("resume", "cancel"),
    "complete": ("switch", "cancel"),
}
ASSETS = {"operations.js": "text/javascript", "operations.css": "text/css"}


def operation_pages(reelsense: ReelSense, access: AdminAccess) -> APIRouter:
    """The page of one installation, its partial, its forms, and its two assets."""
    # Forms of other sites are refused before anything of them is read.
    router = APIRouter(prefix="/operations", include_in_schema=False)

    def page(request: Request, error: ReelsenseError | None = None, name: str = "operations.html") -> Response:
        """A page for whom may see it, the form that asks for a key for others."""
        try:
            actor = access.page(request)
        except ReelsenseError as refusal:
            return _html("key.html", {"error": refusal if request.headers.get("cookie") else None}, 401)
        return _html(name, _seen(reelsense, actor) | {"error": error}, 200 if error is None else 422)

    def act(request: Request, what: Any, anchor: str) -> Response:
        """Do something for an administrator, and show the page again: what was done stands in its audit log."""
        try:
            what(Administrator(reelsense, access.page(request)))
        except ReelsenseError as error:
            return page(request, error)
        return RedirectResponse(f"/operations#{anchor}", 303, HEADERS)

    @router.get("")
    def operations(request: Request) -> Response:
        return page(request)

    @router.get("/live")
    def live(request: Request) -> Response:
        return page(request, name="live.html")

    @router.post("/key")
    def key(request: Request, key: Annotated[str, Form(max_length=200)]) -> Response:
        answer = RedirectResponse("/operations", 303, HEADERS)
        try:
            access.enter(request, answer, key.strip())
        except ReelsenseError as error:
            return _html("key.html", {"error": error}, 401)
        return answer

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

    @router.get("/{asset}")
    def assets(asset: str) -> Response:
        if asset not in ASSETS:
            return Response(status_code=404, headers=HEADERS)
        return Response((PAGES / asset).read_bytes(), headers=HEADERS, media_type=ASSETS[asset])

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


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["clock"] = clock
    environment.filters["duration"] = duration
    return environment


def _html(name: str, seen: dict[str, Any], status: int) -> Response:
    return HTMLResponse(_templates().get_template(name).render(seen), status, HEADERS)
