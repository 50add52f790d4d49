"""The HTTP API, first version: the operations of the command line under `/api/v1`, with problem details (RFC 9457).

It listens on loopback unless told otherwise and has no keys yet, so it refuses any other address
unless the network is declared to be trusted.
"""

from __future__ import annotations

import ipaddress
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, File, Form, Query, Request, UploadFile
from fastapi.responses import JSONResponse

from app.admin_access import AdminAccess, everybody
from app.admin_routes import admin_routes
from app.operation_pages import operation_pages
from app.operations import ReelSense
from store.errors import MediaError, NotFoundError, PassingError, ReelsenseError, SettingsError
from store.settings import Settings, load_settings

CHUNK_BYTES = 1 << 20
STATUSES = {"media.too_large": 413, "queue.busy": 409, "video.quarantined": 409, "request.cross_site": 403}
K = Annotated[int, Query(ge=1, le=10_000)]


def create_api(settings: Settings) -> FastAPI:
    """The application for these settings."""
    reelsense = ReelSense(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        reelsense.catalogue.close()

    api = FastAPI(
        title="ReelSense", version="1", lifespan=lifespan, docs_url="/api/docs", openapi_url="/api/openapi.json"
    )
    api.add_exception_handler(ReelsenseError, problem)
    api.include_router(_health(reelsense))
    api.include_router(_videos(reelsense), prefix="/api/v1")
    api.include_router(_viewers(reelsense), prefix="/api/v1")
    admin = AdminAccess(everybody)
    api.include_router(admin_routes(reelsense, admin), prefix="/api/v1")
    api.include_router(operation_pages(reelsense, admin))
    return api


def problem(_: Request, error: Exception) -> JSONResponse:
    """An error as problem details; the same codes as everywhere."""
    if not isinstance(error, ReelsenseError):
        raise error
    status = 500
    if isinstance(error, NotFoundError) or error.code == "user.unknown":
        status = 404
    elif error.code in STATUSES:
        status = STATUSES[error.code]
    elif isinstance(error, PassingError):
        status = 503
    elif not isinstance(error, SettingsError):
        status = 422
    body = {"type": f"urn:reelsense:{error.code}", "title": error.message, "status": status, "code": error.code}
    return JSONResponse(
        body | ({"detail": error.hint} if error.hint else {}), status, media_type="application/problem+json"
    )


def _health(reelsense: ReelSense) -> APIRouter:
    router = APIRouter(prefix="/health")

    @router.get("/live")
    def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @router.get("/ready")
    def ready() -> dict[str, str]:
        """Store, database and broker answer; 503 otherwise."""
        from workers.celery_app import queue_depths

        next(iter(reelsense.objects.list("sources/")), None)
        reelsense.catalogue.publications("", after=0)
        queue_depths(reelsense.celery)
        return {"status": "ready"}

    return router


def _videos(reelsense: ReelSense) -> APIRouter:
    router = APIRouter(tags=["videos"])

    @router.post("/videos", status_code=202)
    def upload(
        file: Annotated[UploadFile, File()],
        title: Annotated[str, Form()] = "",
        description: Annotated[str, Form()] = "",
        tags: Annotated[str, Form()] = "",
        creator: Annotated[str, Form()] = "",
        region: Annotated[str, Form()] = "",
        language: Annotated[str, Form()] = "",
    ) -> dict[str, Any]:
        """Upload one video; `tags` comma-separated. The answer comes when it is stored, before it is processed."""
        with tempfile.TemporaryDirectory(prefix="reelsense-upload-") as folder:
            # The uploader's file name is shown to people and never opened: here it is `upload`.
            path = Path(folder) / "upload"
            size = 0
            with path.open("wb") as target:
                while chunk := file.file.read(CHUNK_BYTES):
                    size += len(chunk)
                    if size > reelsense.settings.limits.bytes:
                        raise MediaError(
                            "media.too_large", f"More than {reelsense.settings.limits.bytes} bytes were sent."
                        )
                    target.write(chunk)
            added = reelsense.add(
                path,
                title=title or Path(file.filename or "").name,
                description=description,
                tags=tags.split(","),
                creator=creator,
                region=region,
                language=language,
            )
        if added.id is None and added.error is not None:
            raise added.error
        return added.as_json() | {"path": file.filename}

    @router.get("/videos")
    def listed() -> dict[str, Any]:
        """All videos and their states."""
        return reelsense.status()

    @router.get("/videos/{video}")
    def shown(video: str) -> dict[str, Any]:
        """All that is understood of one video."""
        return reelsense.show(video)

    @router.get("/videos/{video}/similar")
    def similar(video: str, k: K = 10) -> dict[str, Any]:
        """The videos most like one."""
        return reelsense.similar(video, k)

    @router.get("/search")
    def search(q: Annotated[str, Query(min_length=1, max_length=1000)], k: K = 10) -> dict[str, Any]:
        """Videos that say or show what the words ask for."""
        return reelsense.search(q, k)

    return router


def _viewers(reelsense: ReelSense) -> APIRouter:
    router = APIRouter(tags=["viewers"])

    @router.post("/events", status_code=201)
    def event(
        user: Annotated[str, Body()],
        video: Annotated[str, Body()],
        kind: Annotated[str, Body()],
        watched: Annotated[float | None, Body()] = None,
        at: Annotated[float | None, Body()] = None,
    ) -> dict[str, Any]:
        """Record what a viewer did."""
        return reelsense.event(user, video, kind, watched, at)

    @router.get("/viewers/{user}/profile")
    def profile(user: str) -> dict[str, Any]:
        """What is known of a viewer's taste."""
        return reelsense.profile(user)

    @router.get("/viewers/{user}/feed")
    def feed(user: str, k: K = 10) -> dict[str, Any]:
        """A viewer's feed with its reasons."""
        return reelsense.recommend(user, k)

    return router


def check_loopback(settings: Settings) -> None:
    """Refuse to listen beyond this machine while there are no keys. Raises `settings.invalid`."""
    host = settings.host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not settings.trusted_network:
        raise SettingsError(
            "settings.invalid",
            f"The API has no keys yet and so listens on loopback only, not on {host}.",
            hint="Put a proxy that authenticates in front; in a private network set REELSENSE_TRUSTED_NETWORK=true.",
        )


def main() -> None:
    """`python -m app.api`: serve with the settings of the environment."""
    import uvicorn

    settings = load_settings()
    check_loopback(settings)
    uvicorn.run(create_api(settings), host=settings.host, port=settings.port, log_level="warning", server_header=False)


if __name__ == "__main__":
    main()
