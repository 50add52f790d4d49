"""The media of a video, under `/api/v1`: its bytes by range, a picture, and its state as a live stream.

No answer is made by reading a whole video: a part is read from the store as it is sent. A video that goes away while
it plays ends at the next range with `video.unknown`; what is being sent goes on where the store lets it (a directory
does).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse

from app.access import Access, Caller
from app.byte_ranges import byte_range
from app.entity_tags import has_already, not_modified
from app.operations import ReelSense
from app.status_stream import StatusStreams
from app.stored_pictures import WIDEST, StoredPictures
from store.administration import Administration
from store.artifacts import artifact_key, source_key
from store.catalogue import Video
from store.errors import InputError, NotFoundError

CHUNK_BYTES = 256 * 1024
THUMBNAIL_WIDTH = 320
# By the names that the prober gives containers. Anything else is bytes that a browser saves and never opens.
MEDIA_TYPES = {
    "mov": "video/mp4",
    "mp4": "video/mp4",
    "m4v": "video/mp4",
    "matroska": "video/webm",  # what browsers read of it is that
    "webm": "video/webm",
    "mpegts": "video/mp2t",
    "mpeg": "video/mpeg",
    "avi": "video/x-msvideo",
    "flv": "video/x-flv",
    "ogg": "video/ogg",
    "asf": "video/x-ms-asf",
}
# Whatever the bytes are, nothing in them runs.
POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"video/mp4": {}}, "description": "All of it."},
    206: {"content": {"video/mp4": {}}, "description": "The bytes that `Range` asks for."},
    304: {"description": "The client has it already (`If-None-Match`)."},
    416: {"description": "`request.range`: no byte lies in the range; `Content-Range` says how many there are."},
}
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "The picture."},
    304: {"description": "The client has it already (`If-None-Match`)."},
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "example": 'event: status\nid: 5b1c\ndata: {"id": "9f86d081884c7d659a2feaa0c55ad015", "state": '
                '"processing", "done": 3, "of": 12, ...}\n\n'
            }
        },
        "description": "`status` events, then one `end` when nothing more will change.",
    },
    204: {"description": "The client knows the end already (`Last-Event-ID`): a browser stops asking."},
}


def media_routes(reelsense: ReelSense, access: Access, streams: StatusStreams) -> APIRouter:
    """The routes over one installation."""
    router = APIRouter(tags=["videos"])
    read = access.require("read")
    pictures: StoredPictures | None = None

    def kept_pictures() -> StoredPictures:
        nonlocal pictures
        pictures = pictures or StoredPictures(reelsense.objects)
        return pictures

    def visible(video_id: str, caller: Caller) -> Video:
        """The video, unless it is in quarantine: that is for administrators alone."""
        video = reelsense.catalogue.video(video_id)
        mark = Administration(reelsense.catalogue).quarantined([video.id]).get(video.id)
        if mark is not None and "admin" not in caller.scopes:
            raise InputError("video.quarantined", mark.message)
        return video

    @router.head("/videos/{video}/media", include_in_schema=False)
    @router.get("/videos/{video}/media", response_class=StreamingResponse, responses=_BYTES)
    def media(request: Request, video: str, caller: Caller = Depends(read)) -> Response:  # noqa: B008
        """The video as it was uploaded. `Range`, `If-Range` and `If-None-Match` are understood, so players seek."""
        found = visible(video, caller)
        key = source_key(found.id)
        size = reelsense.objects.size(key)
        if size is None:
            raise NotFoundError("video.not_ready", f"The bytes of the video {found.id[:12]} are not in the store.")
        tag = f'"{found.id}"'
        headers = {
            "etag": tag,
            "accept-ranges": "bytes",
            "cache-control": "private, no-cache",
            "content-security-policy": POLICY,
            "content-type": media_type(found.media.container),
        }
        if has_already(request.headers.get("if-none-match"), tag):
            return not_modified(headers)
        wanted = None
        # The id is the content's digest, so a range of another content is told apart by it alone.
        if request.method == "GET" and request.headers.get("if-range", tag) == tag:
            wanted = byte_range(request.headers.get("range"), size)
        first, length = (wanted.first, wanted.length) if wanted else (0, size)
        headers["content-length"] = str(length)
        if wanted:
            headers["content-range"] = f"bytes {wanted.first}-{wanted.last}/{size}"
        if request.method == "HEAD" or not length:
            return Response(status_code=200, headers=headers)
        stream = reelsense.objects.open_part(key, first, length)
        return StreamingResponse(_chunks(stream), 206 if wanted else 200, headers)

    @router.head("/videos/{video}/thumbnail", include_in_schema=False)
    @router.get("/videos/{video}/thumbnail", response_class=Response, responses=_PICTURE)
    def thumbnail(
        request: Request,
        video: str,
        seconds: Annotated[
            float | None, Query(ge=0, le=1e7, allow_inf_nan=False, description="The picture nearest to this moment.")
        ] = None,
        width: Annotated[int, Query(ge=16, le=WIDEST, description="Pixels at the most.")] = THUMBNAIL_WIDTH,
        caller: Caller = Depends(read),  # noqa: B008
    ) -> Response:
        """A picture of the video (JPEG): from a third of its time, or from the moment that is asked for."""
        found = visible(video, caller)
        key = reelsense.graph.key(found, "frames")
        tag = f'"{found.id[:16]}-{key.version}-{seconds if seconds is not None else ""}-{width}"'
        headers = {"etag": tag, "cache-control": "private, max-age=300"}
        if has_already(request.headers.get("if-none-match"), tag):
            return not_modified(headers)
        path = artifact_key(key.stage, key.version, key.video_id, key.revision)
        try:
            picture = kept_pictures().picture(path, seconds, width)
        except InputError as error:
            if error.code != "store.missing":
                raise
            raise NotFoundError(
                "video.not_ready",
                f"The video {found.id[:12]} has no pictures yet.",
                hint="Follow its state at /events; when it has failed there will be none.",
            ) from None
        return Response(picture, headers=headers, media_type="image/jpeg")

    @router.get("/videos/{video}/events", response_class=StreamingResponse, responses=_STREAM)
    async def events(request: Request, video: str, _: Caller = Depends(read)) -> Response:  # noqa: B008
        """The state of a video and its stages as server-sent events: one now, one at each change, then `end`."""
        return await streams.answer(video, request.headers.get("last-event-id"))

    return router


def media_type(container: str) -> str:
    """The media type by the prober's name of the container, which may be a list (`mov,mp4,m4a`)."""
    names = [name.strip().lower() for name in container.split(",")]
    return next((MEDIA_TYPES[name] for name in names if name in MEDIA_TYPES), "application/octet-stream")


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while data := stream.read(CHUNK_BYTES):
            yield data
