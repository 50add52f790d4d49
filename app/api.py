"""The HTTP API: the operations of the command line under `/api/v1`, with problem details (RFC 9457).

It listens on loopback unless told otherwise, where all is open until the first key is made; any other address needs
keys (`app/access.py`). `app/guard.py` stands before every route; uploads are in `app/upload_routes.py`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.access import Access, check_bind
from app.admin_access import AdminAccess
from app.admin_routes import admin_routes
from app.assets import asset_routes
from app.conditional import Conditional
from app.documentation import documentation_routes
from app.event_routes import event_routes
from app.feed_pages import feed_pages
from app.guard import Guard
from app.idempotency import Idempotency
from app.intaking import Intaking
from app.library_pages import library_pages
from app.map_pages import map_pages
from app.media_routes import media_routes
from app.model_routes import model_routes
from app.monitoring_routes import monitoring_routes
from app.notification_routes import notification_routes
from app.operation_pages import operation_pages
from app.operations import ReelSense
from app.presigned_routes import presigned_routes
from app.problems import unexpected
from app.quality_pages import quality_pages
from app.rate_limits import RateLimits
from app.reembed_routes import reembed_routes
from app.request_log import RequestLog
from app.site import Site
from app.status_stream import StatusStreams
from app.stopping import Stopping
from app.upload_pages import upload_pages
from app.upload_routes import form_routes, tus_routes
from app.video_pages import video_pages
from app.video_routes import video_routes
from app.viewer_pages import viewer_pages
from app.viewer_routes import viewer_routes
from store.errors import ReelsenseError
from store.settings import Settings, load_settings
from workers import logs
from workers.reporting import reporting

GRACE_SECONDS = 10
# Connections beyond it are answered 503: each holds a socket and some memory, be it idle.
MOST_CONNECTIONS = 512


def create_api(settings: Settings) -> FastAPI:
    """The application for these settings."""
    reelsense = ReelSense(settings)
    access = Access(reelsense)
    intaking = Intaking(reelsense)
    stopping = Stopping()
    site = Site(reelsense, access)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with reporting(settings, "api"):
            intaking.start()
            stopping.listen()
            yield
            intaking.stop()
        reelsense.catalogue.close()

    api = FastAPI(title="ReelSense", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    # The last one stands before the others.
    api.add_middleware(Conditional)
    api.add_middleware(Idempotency, access=access)
    api.add_middleware(RateLimits, rates=settings.rates)
    api.add_middleware(Guard, settings=settings)
    api.add_middleware(RequestLog)
    api.add_exception_handler(ReelsenseError, site.problem)
    api.add_exception_handler(RequestValidationError, site.malformed)
    api.add_exception_handler(HTTPException, site.unrouted)
    api.add_exception_handler(ClientDisconnect, _gone)
    api.add_exception_handler(Exception, unexpected)
    api.include_router(monitoring_routes(reelsense, access))
    api.include_router(documentation_routes(api, access, site))
    api.include_router(form_routes(intaking, access), prefix="/api/v1")
    # Before the routes of uploads by id, or `presigned` would be taken for one.
    api.include_router(presigned_routes(reelsense), prefix="/api/v1", dependencies=[Depends(access.require("upload"))])
    api.include_router(tus_routes(intaking, access), prefix="/api/v1")
    api.include_router(media_routes(reelsense, access, StatusStreams(reelsense, stopping)), prefix="/api/v1")
    api.include_router(video_routes(reelsense), prefix="/api/v1", dependencies=[Depends(access.require("read"))])
    api.include_router(event_routes(reelsense, access), prefix="/api/v1")
    api.include_router(viewer_routes(reelsense), prefix="/api/v1", dependencies=[Depends(access.require("recommend"))])
    # An object store has no key: it sends the secret of `incoming.notification_secret`.
    api.include_router(notification_routes(reelsense), prefix="/api/v1")
    admin = AdminAccess(lambda authorization: access.caller(authorization, "admin").user)
    api.include_router(
        admin_routes(reelsense, admin), prefix="/api/v1", dependencies=[Depends(access.require("admin"))]
    )
    api.include_router(
        reembed_routes(reelsense, admin), prefix="/api/v1", dependencies=[Depends(access.require("admin"))]
    )
    api.include_router(
        model_routes(reelsense, admin), prefix="/api/v1", dependencies=[Depends(access.require("admin"))]
    )
    # The pages; they ask for scopes as the routes above do.
    api.include_router(asset_routes())
    for pages in (
        site.key_routes(),
        feed_pages(site),
        viewer_pages(site),
        library_pages(site),
        video_pages(site, admin),
        upload_pages(site, intaking),
        map_pages(site),
        operation_pages(site, admin),
        quality_pages(site, access),
    ):
        api.include_router(pages)
    return api


def _gone(_: Request, __: Exception) -> Response:
    """The client went away in mid-body: nobody reads this."""
    return Response(status_code=400)


def main() -> None:
    """`python -m app.api`: serve with the settings of the environment."""
    import uvicorn
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from app.http_heads import protocol

    settings = load_settings()
    logs.configure(settings, service="api")
    try:
        check_bind(settings)
    except ReelsenseError as error:
        sys.exit(f"{error.code}: {error.message} {error.hint}")
    api = create_api(settings)
    # Requests are many and their matrices small: threads that wait for each other's part of a product take three times
    # the CPU of a feed from other requests (docs/feed.md).
    with threadpool_limits(1, user_api="blas"):
        uvicorn.run(
            api,
            host=settings.host,
            port=settings.port,
            log_level="warning",
            # Uvicorn leaves logging as `logs.configure` made it.
            log_config=None,
            server_header=False,
            proxy_headers=False,
            http=protocol(settings.intake.silence_seconds),
            timeout_graceful_shutdown=GRACE_SECONDS,
            limit_concurrency=MOST_CONNECTIONS,
        )


if __name__ == "__main__":
    main()
