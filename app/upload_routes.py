"""Uploads over HTTP: resumable by the tus protocol 1.0.0 under `/api/v1/uploads`, and a form, `POST /api/v1/videos`.

tus (tus.io/protocols/resumable-upload): core, creation, creation-with-upload, creation-defer-length, checksum,
expiration, termination. Written here and not taken from a library, for the kept one (tuspyserver 4.4) was tried and is
unfit: after a kill in mid-piece it appends to what is there from the offset before, and the file is corrupt; DELETE of
`ID.info` drops another upload's record; a length above the maximum or below zero is accepted; the first piece of a
creation is read into memory and not counted; bytes are written before content type and key are looked at; a second
PATCH blocks the event loop; the clearing of expired uploads raises.

The offset is the size of the file, so a kill at any instruction leaves nothing to disagree about.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from app.access import Access, Caller
from app.admission import BusyError
from app.form_upload import LANGUAGE, FormUpload, captions_language, malformed
from app.guard import MOST_CAPTIONS, TUS_VERSION, UPLOADS
from app.intaking import Intaking, began
from app.operations import Added, error_json
from app.upload_body import CHECKSUMS, disk_full, number, pieces, receive
from app.upload_files import unknown
from store.errors import InputError
from store.records import WORD_FIELDS
from store.upload_ledger import Upload
from workers.display_names import display_name
from workers.intake import metadata_of

EXTENSIONS = "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination"
PIECE_TYPE = "application/offset+octet-stream"
_FORM_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}}
                    | {name: {"type": "string"} for name in WORD_FIELDS}
                    | {"captions": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}


def form_routes(intaking: Intaking, access: Access) -> APIRouter:
    """`POST /videos`."""
    router = APIRouter(tags=["videos"])
    allowed = Depends(access.require("upload"))

    @router.post("/videos", status_code=202, openapi_extra=_FORM_SCHEMA)
    async def upload(request: Request, caller: Caller = allowed) -> dict[str, Any]:
        """Upload one video in a form: `file`, and `title`, `description`, `tags` (comma-separated), `creator`,
        `region`, `language`, `sound`, `captions` (files; or `captions.en`). The answer comes when it is stored, before
        it is processed."""
        added, file_name = await take_form(intaking, request, caller)
        return added.as_json() | {"path": file_name}

    return router


async def take_form(intaking: Intaking, request: Request, caller: Caller) -> tuple[Added, str]:
    """Read the form of a request, and take its video in: what became of it, and what its sender calls the file. Raises
    what stands against the form or the video."""
    settings = intaking.settings
    announced = request.headers.get("content-length", "")
    largest = settings.limits.bytes
    started = began(caller.user, "form", min(int(announced), largest) if announced else None, largest)
    lock = await run_in_threadpool(intaking.open, started)
    try:
        form = FormUpload(request.headers.get("content-type", ""), intaking.files.data(started.id), settings.limits)
        try:
            async for piece in pieces(request):
                await run_in_threadpool(form.write, piece)
            await run_in_threadpool(form.close)
        finally:
            form.abandon()
        words = words_of(form.words)
        for language, content in form.captions:
            intaking.files.add_captions(started.id, content, language)
        await run_in_threadpool(_finish_form, intaking, started, form.file_name or "", words, form.bytes)
    except OSError as error:
        intaking.discard(started.id)
        raise disk_full(intaking) from error
    except BaseException:
        # Also when the client has gone: what it took is given back at once.
        intaking.discard(started.id)
        raise
    finally:
        os.close(lock)
    added = await asyncio.wrap_future(intaking.submit(started.id))
    while added is None:
        # Somebody looked at it while this request still held it, or another process takes it in.
        await asyncio.sleep(0.1)
        added = await run_in_threadpool(_ended, intaking, started.id)
        added = added or await asyncio.wrap_future(intaking.submit(started.id))
    if added.id is None and added.error is not None:
        raise added.error
    return added, form.file_name or ""


def _finish_form(intaking: Intaking, upload: Upload, file_name: str, words: dict[str, Any], size: int) -> None:
    intaking.ledger.set_words(upload.id, display_name(file_name), json.dumps(words))
    intaking.ledger.received(upload.id, size)


def _ended(intaking: Intaking, upload_id: str) -> Added | None:
    """What another process made of the upload; None when that is still open."""
    upload = intaking.ledger.find(upload_id)
    if upload is not None and upload.state == "received":
        return None
    if upload is None or upload.state == "receiving":
        raise unknown(upload_id)
    return Added(upload_id, upload.video_id, "waiting", upload.outcome or "", _error_of(upload))


def tus_routes(intaking: Intaking, access: Access) -> APIRouter:
    """`/uploads`."""
    router = APIRouter(tags=["uploads"], prefix="/uploads")
    files = intaking.files
    limits = intaking.settings.limits
    allowed = Depends(access.require("upload"))

    def owned(upload_id: str, caller: Caller) -> Upload:
        files.folder(upload_id)
        upload = intaking.ledger.find(upload_id)
        if upload is None or not caller.may_see(upload.user_id):
            raise unknown(upload_id)
        return upload

    def expires(upload: Upload) -> str:
        return formatdate(upload.touched_at + intaking.settings.intake.expiry_seconds, usegmt=True)

    @router.options("", status_code=204)
    async def options(_: Caller = allowed) -> Response:
        """What this server speaks."""
        headers = {
            "Tus-Version": TUS_VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(limits.bytes),
            "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
        }
        return Response(status_code=204, headers=headers)

    @router.post("", status_code=201)
    async def create(request: Request, caller: Caller = allowed) -> Response:
        """Begin an upload (tus creation). `Upload-Metadata` holds title, description, tags, creator, region, language,
        sound, filename, captions; `Location` in the answer is where the bytes go."""
        check_version(request)
        if request.headers.get("upload-concat") is not None:
            raise malformed("Upload-Concat is not spoken here.")
        length = number(request, "upload-length")
        deferred = request.headers.get("upload-defer-length")
        if (length is None) == (deferred is None) or deferred not in (None, "1"):
            raise malformed("Give either Upload-Length or `Upload-Defer-Length: 1`.")
        header = request.headers.get("upload-metadata", "")
        fields = read_metadata(header)
        words = words_of(fields)
        captions = [(name, text) for name, text in fields.items() if name.partition(".")[0] == "captions" and text]
        if len(captions) > MOST_CAPTIONS:
            raise malformed(f"There are more than {MOST_CAPTIONS} caption files.")
        languages = [captions_language(name, "") for name, _ in captions]
        upload = began(caller.user, "tus", length, limits.bytes).model_copy(
            update={
                "file_name": display_name(fields.get("filename") or fields.get("name") or ""),
                "words": json.dumps(words),
                "header": header,
            }
        )
        with_piece = request.headers.get("content-type", "") == PIECE_TYPE
        lock = await run_in_threadpool(intaking.open, upload)
        offset = 0
        try:
            try:
                for language, (_, text) in zip(languages, captions, strict=True):
                    files.add_captions(upload.id, text.encode(), language)
                # Bad words are refused before a byte of the video is sent.
                await run_in_threadpool(_check_words, intaking, upload.id, words)
            except BaseException:
                intaking.discard(upload.id)
                raise
            if with_piece:
                # A piece that breaks leaves the upload as tus wants it: its client does not know its address, but a
                # client that got none begins anew, and this one expires.
                offset = await receive(intaking, request, upload, 0)
            elif length == 0:
                await run_in_threadpool(intaking.ledger.received, upload.id, 0)
        finally:
            os.close(lock)
        if length is not None and offset == length:
            intaking.submit(upload.id)
        headers = {"Location": f"{UPLOADS}/{upload.id}", "Upload-Expires": expires(upload)}
        if with_piece:
            headers["Upload-Offset"] = str(offset)
        return Response(status_code=201, headers=headers)

    @router.get("")
    def listed(caller: Caller = allowed) -> dict[str, Any]:
        """The caller's uploads that can still be read (with scope admin: everybody's)."""
        user = None if "admin" in caller.scopes else caller.user
        return {"uploads": [_shown(intaking, upload) for upload in intaking.ledger.all(user_id=user)]}

    @router.get("/{upload_id}")
    def shown(upload_id: str, caller: Caller = allowed) -> dict[str, Any]:
        """How far an upload is; at its end the video's id and outcome, or the error."""
        return _shown(intaking, owned(upload_id, caller))

    @router.head("/{upload_id}")
    async def where(upload_id: str, request: Request, caller: Caller = allowed) -> Response:
        """Where to go on (tus core)."""
        check_version(request)
        upload = await run_in_threadpool(owned, upload_id, caller)
        headers = {"Upload-Offset": str(await run_in_threadpool(files.offset, upload))}
        if upload.length is None:
            headers["Upload-Defer-Length"] = "1"
        else:
            headers["Upload-Length"] = str(upload.length)
        if upload.header:
            headers["Upload-Metadata"] = upload.header
        if upload.state == "receiving":
            headers["Upload-Expires"] = expires(upload)
        return Response(status_code=200, headers=headers)

    @router.patch("/{upload_id}", status_code=204)
    async def piece(upload_id: str, request: Request, caller: Caller = allowed) -> Response:
        """The next bytes (tus core)."""
        check_version(request)
        upload = await run_in_threadpool(owned, upload_id, caller)
        if request.headers.get("content-type", "") != PIECE_TYPE:
            raise malformed(f"The Content-Type of a piece is {PIECE_TYPE}.")
        offset = number(request, "upload-offset")
        if offset is None:
            raise malformed("The Upload-Offset header is missing.")
        lock = await run_in_threadpool(_hold, intaking, upload)
        try:
            upload = await run_in_threadpool(owned, upload_id, caller)
            at = await run_in_threadpool(files.offset, upload)
            if offset != at:
                raise InputError("upload.offset_mismatch", f"The upload stands at {at}, the piece begins at {offset}.")
            if upload.state != "receiving":
                if at and request.headers.get("content-length", "") == "0":
                    return Response(status_code=204, headers={"Upload-Offset": str(at)})
                raise InputError("upload.finished", "All bytes of this upload have come.")
            upload = await run_in_threadpool(_announced, intaking, upload, number(request, "upload-length"), at)
            at = await receive(intaking, request, upload, at)
        finally:
            if lock is not None:
                os.close(lock)
        if at == upload.length:
            intaking.submit(upload_id)
        return Response(status_code=204, headers={"Upload-Offset": str(at), "Upload-Expires": expires(upload)})

    @router.put("/{upload_id}/captions", status_code=204)
    async def captions(upload_id: str, request: Request, language: str = "", caller: Caller = allowed) -> Response:
        """A caption file (SubRip, WebVTT, ASS) for an upload whose last byte has not come; too large for a header."""
        upload = await run_in_threadpool(owned, upload_id, caller)
        if language and not LANGUAGE.fullmatch(language):
            raise InputError("metadata.invalid", f"The captions' language {language[:40]!r} is malformed.")
        content = await request.body()
        lock = await run_in_threadpool(_hold, intaking, upload)
        try:
            if upload.state != "receiving" or lock is None:
                raise InputError("upload.finished", "All bytes of this upload have come.")
            if len(files.captions(upload_id)) >= MOST_CAPTIONS:
                raise malformed(f"There are more than {MOST_CAPTIONS} caption files.")
            added = await run_in_threadpool(files.add_captions, upload_id, content, language)
            try:
                await run_in_threadpool(_check_words, intaking, upload_id, json.loads(upload.words))
            except BaseException:
                added.unlink(missing_ok=True)
                raise
        finally:
            if lock is not None:
                os.close(lock)
        return Response(status_code=204)

    @router.delete("/{upload_id}", status_code=204)
    def drop(upload_id: str, request: Request, caller: Caller = allowed) -> Response:
        """Give an unfinished or refused upload up (tus termination). A video that came of one stays."""
        check_version(request)
        upload = owned(upload_id, caller)
        lock = _hold(intaking, upload)
        try:
            upload = owned(upload_id, caller)
            if upload.state in ("received", "taken"):
                raise InputError("upload.finished", "All bytes of this upload have come; it cannot be dropped.")
            intaking.discard(upload_id)
        finally:
            if lock is not None:
                os.close(lock)
        return Response(status_code=204)

    @router.post("/{upload_id}", include_in_schema=False)
    async def overridden(upload_id: str, request: Request, caller: Caller = allowed) -> Response:
        """For clients that can only POST: `X-HTTP-Method-Override`, as tus demands."""
        method = request.headers.get("x-http-method-override", "").upper()
        if method == "PATCH":
            return await piece(upload_id, request, caller)
        if method == "DELETE":
            return await run_in_threadpool(drop, upload_id, request, caller)
        if method == "HEAD":
            return await where(upload_id, request, caller)
        raise malformed("POST to an upload needs X-HTTP-Method-Override.")

    return router


def check_version(request: Request) -> None:
    """Raises `upload.version`."""
    if request.headers.get("tus-resumable") != TUS_VERSION:
        raise InputError("upload.version", f"Send the header Tus-Resumable: {TUS_VERSION}.")


def read_metadata(header: str) -> dict[str, str]:
    """Upload-Metadata as texts by key. Raises `upload.malformed`, `metadata.invalid`."""
    fields: dict[str, str] = {}
    for pair in header.split(",") if header.strip() else []:
        key, _, value = pair.strip().partition(" ")
        if not key or not key.isascii() or key in fields:
            raise malformed("Upload-Metadata has an empty key, or one twice.")
        try:
            fields[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError):
            raise InputError("metadata.invalid", f"Upload-Metadata: {key[:40]} is not UTF-8 in base64.") from None
    return fields


def words_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """The words for `ReelSense.add`. The name of the file is none of them: a file sent again without words keeps those
    it has."""
    words: dict[str, Any] = {name: fields.get(name, "") for name in WORD_FIELDS}
    words["tags"] = words["tags"].split(",")
    return words


def _check_words(intaking: Intaking, upload_id: str, words: dict[str, Any]) -> None:
    captions = intaking.files.captions(upload_id)
    metadata_of(intaking.files.data(upload_id), captions=captions, limits=intaking.settings.limits, **words)


def _hold(intaking: Intaking, upload: Upload) -> int | None:
    """The upload for oneself; None when its folder is gone, as after its end. Raises `upload.busy`."""
    if not intaking.files.here(upload.id):
        return None
    lock = intaking.files.lock(upload.id)
    if lock is None and intaking.files.here(upload.id):
        raise BusyUploadError
    return lock


class BusyUploadError(BusyError):
    """Somebody else has the upload."""

    def __init__(self) -> None:
        super().__init__("upload.busy", "Another request is writing to this upload.", retry_seconds=1)


def _announced(intaking: Intaking, upload: Upload, length: int | None, offset: int) -> Upload:
    """The upload with the length that this request may bring."""
    if length is None or length == upload.length:
        return upload
    if upload.length is not None or length < offset:
        raise malformed("Upload-Length is given once, and not below what has come.")
    began(upload.user_id, "tus", length, intaking.settings.limits.bytes)
    intaking.ledger.announce(upload, length)
    return upload.model_copy(update={"length": length})


def _shown(intaking: Intaking, upload: Upload) -> dict[str, Any]:
    offset = upload.length or 0
    if upload.state == "receiving":
        offset = intaking.files.offset(upload) if intaking.files.here(upload.id) else 0
    return {
        "id": upload.id,
        "state": upload.state,
        "length": upload.length,
        "offset": offset,
        "created_at": upload.created_at,
        "finished_at": upload.finished_at,
        "video": upload.video_id,
        "outcome": upload.outcome,
        "error": error_json(_error_of(upload)),
    }


def _error_of(upload: Upload) -> InputError | None:
    if not upload.error_code:
        return None
    return InputError(upload.error_code, upload.error_message or "", hint=upload.error_hint or "")
