"""Direct upload: the client PUTs to the object store itself, at an address that is good for one object and a short
time.

`POST /uploads/presigned` answers the address; `POST /uploads/presigned/ID/complete`, when all is there, has it
measured, hashed and probed as any other upload, and answers what became of it. Nothing is taken in before that call: an
upload that is never completed is removed after `incoming.presigned_keep_seconds`.
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body

from app.operations import ReelSense
from store.errors import InputError, MediaError, NotFoundError, PassingError
from store.foreign_objects import presigned_put
from store.incoming import IncomingLedger, PresignedUpload
from store.records import Metadata
from workers.incoming import PRESIGNED, open_incoming, shown
from workers.incoming_words import clean
from workers.intake import checked_metadata


def presigned_routes(reelsense: ReelSense) -> APIRouter:
    """The routes of one installation."""
    router = APIRouter(tags=["uploads"])
    settings = reelsense.settings

    @router.post("/uploads/presigned", status_code=201)
    def opened(file_name: Annotated[str, Body(embed=True, max_length=1000)] = "") -> dict[str, Any]:
        """An address for one PUT of the file, until `expires_at`; then call `complete`. `file_name` is shown to
        people."""
        upload = secrets.token_hex(16)
        key = settings.incoming.prefix + PRESIGNED + upload
        url = presigned_put(reelsense.objects, settings, key)
        IncomingLedger(reelsense.catalogue).open_presigned(upload, shown(file_name))
        return {
            "id": upload,
            "method": "PUT",
            "url": url,
            "expires_at": time.time() + settings.incoming.presigned_seconds,
            "most_bytes": settings.limits.bytes,
            "complete": f"/api/v1/uploads/presigned/{upload}/complete",
        }

    @router.post("/uploads/presigned/{upload}/complete", status_code=202)
    def completed(
        upload: str,
        title: Annotated[str, Body()] = "",
        description: Annotated[str, Body()] = "",
        tags: Annotated[list[str] | None, Body()] = None,
        creator: Annotated[str, Body()] = "",
        region: Annotated[str, Body()] = "",
        language: Annotated[str, Body()] = "",
        sound: Annotated[str, Body()] = "",
    ) -> dict[str, Any]:
        """All is there. Calling it again answers the same; the words of the first call count."""
        metadata = checked_metadata(
            title=clean(title),
            description=clean(description),
            tags=[clean(tag) for tag in tags or []],
            creator=clean(creator),
            region=region,
            language=language,
            sound=clean(sound),
        )
        return complete(reelsense, upload, metadata)

    return router


def complete(reelsense: ReelSense, upload: str, metadata: Metadata) -> dict[str, Any]:
    """Take a direct upload in. The completion is noted first, so that nobody who dies on the way loses it.

    Raises `upload.unknown`, `upload.incomplete`, the codes of intake.
    """
    incoming = open_incoming(reelsense.settings, reelsense.objects, reelsense.catalogue, reelsense.graph)
    found = incoming.ledger.presigned(upload)
    if found is None or found.state == "expired":
        raise NotFoundError("upload.unknown", "There is no such direct upload, or it has expired.")
    key = reelsense.settings.incoming.prefix + PRESIGNED + upload
    if found.state == "open":
        if incoming.foreign.stat(key) is None:
            raise InputError(
                "upload.incomplete", "Nothing has arrived under this address yet.", hint="PUT the file first."
            )
        incoming.ledger.complete_presigned(upload, metadata)
        found = incoming.ledger.presigned(upload) or found
    if found.state == "completed":
        outcome = incoming.take(key).outcome
        found = incoming.ledger.presigned(upload) or found
        if outcome == "gone" and found.state == "completed":
            # An end is noted before the object is removed: so nobody took it in, it was taken away.
            gone = InputError("upload.incomplete", "What was uploaded has been taken away again.")
            incoming.ledger.end_presigned(upload, None, gone)
            raise gone
    return _answer(reelsense, found)


def _answer(reelsense: ReelSense, found: PresignedUpload) -> dict[str, Any]:
    if found.state == "refused":
        raise MediaError(found.error_code or "internal", found.error_message or "The upload was refused.")
    if found.video_id is None:
        # Somebody else is at it, or it was taken away again before it could be read.
        raise PassingError("store.unavailable", "The upload is being looked at.", hint="Ask again in a moment.")
    video = reelsense.catalogue.video(found.video_id)
    return {"id": video.id, "upload": found.id, "state": reelsense.graph.states([video])[video.id][0]}
