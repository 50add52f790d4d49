"""Bucket notifications by webhook: `POST /api/v1/notifications/s3`, as MinIO's webhook target and others send them."""

from __future__ import annotations

import hmac
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from app.operations import ReelSense
from store.errors import InputError
from store.incoming import IncomingLedger
from workers.notifications import keys_of


def notification_routes(reelsense: ReelSense) -> APIRouter:
    """The route of one installation."""
    router = APIRouter(tags=["notifications"])

    @router.post("/notifications/s3", status_code=202)
    async def notified(request: Request) -> Any:
        """S3 event records. `Authorization` carries `incoming.notification_secret`, after `Bearer` or alone.

        The answer comes when the keys are noted, before any of them is looked at.
        """
        secret = reelsense.settings.incoming.notification_secret.get_secret_value()
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not secret or not hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode()):
            raise InputError(
                "notification.refused",
                "This notification does not carry the secret that was agreed on.",
                hint="Set REELSENSE_INCOMING__NOTIFICATION_SECRET here and as the target's auth_token.",
            )
        keys = keys_of(await request.body(), reelsense.settings)
        if keys:
            await run_in_threadpool(lambda: IncomingLedger(reelsense.catalogue).hint(keys))
        return {"noted": len(keys)}

    return router
