"""Errors as problem details (RFC 9457), with the codes of `store/errors.py` and the headers that go with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.admission import BusyError
from app.byte_ranges import RangeError
from store import measurements
from store.errors import InputError, NotFoundError, PassingError, ReelsenseError, SettingsError

# 460 is the tus protocol's own.
STATUSES: Mapping[str, int] = MappingProxyType(
    {
        "user.unknown": 404,
        "ranker.no_such_model": 404,
        "media.too_large": 413,
        "access.key_missing": 401,
        "access.key_invalid": 401,
        "access.key_expired": 401,
        "access.scope_missing": 403,
        "request.host_unknown": 421,
        "request.cross_site": 403,
        "request.too_large": 413,
        "request.too_slow": 408,
        "notification.refused": 401,
        "queue.busy": 409,
        "job.overlaps": 409,
        "job.wrong_state": 409,
        "job.incomplete": 409,
        "video.quarantined": 409,
        "video.not_ready": 404,
        "request.range": 416,
        "request.too_many": 429,
        "request.in_progress": 409,
        "request.too_many_streams": 503,
        "upload.malformed": 400,
        "upload.version": 412,
        "upload.offset_mismatch": 409,
        "upload.checksum_mismatch": 460,
        "upload.busy": 423,
        "upload.finished": 409,
        "intake.too_many_uploads": 429,
        "intake.too_many_bytes": 429,
        "intake.queue_full": 429,
        "intake.disk_full": 507,
    }
)


def status_of(error: ReelsenseError) -> int:
    """The HTTP status of an error."""
    if error.code in STATUSES:
        return STATUSES[error.code]
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, PassingError):
        return 503
    return 500 if isinstance(error, SettingsError) else 422


@contextlib.contextmanager
def asked_for() -> Iterator[None]:
    """Settings that a request names are its own fault, and not this installation's."""
    try:
        yield
    except SettingsError as error:
        raise InputError(error.code, error.message, hint=error.hint) from error


def problem(_: Request | None, error: Exception) -> JSONResponse:
    """An error as problem details; the same codes as everywhere."""
    if not isinstance(error, ReelsenseError):
        raise error
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(error.retry_seconds)
    if error.code in ("access.key_missing", "access.key_invalid", "access.key_expired"):
        headers["WWW-Authenticate"] = 'Bearer realm="reelsense"'
    if isinstance(error, RangeError):
        headers["Content-Range"] = f"bytes */{error.bytes}"
    if error.code == "upload.version":
        headers["Tus-Version"] = "1.0.0"
    return _answer(error, status_of(error), headers)


def malformed(_: Request, error: Exception) -> JSONResponse:
    """A request that FastAPI refuses: which field, and never its value, which may be a secret."""
    assert isinstance(error, RequestValidationError)
    return _answer(malformed_error(error), 422, {})


def malformed_error(error: RequestValidationError) -> InputError:
    """What FastAPI refuses, as an error of ours."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    return InputError("request.invalid", f"The request's {name} is not valid: {first['msg']}.")


def unrouted(_: Request, error: Exception) -> JSONResponse:
    """No such address, a method it does not know, a body that cannot be read."""
    assert isinstance(error, HTTPException)
    return _answer(unrouted_error(error), error.status_code, dict(error.headers or {}))


def unrouted_error(error: HTTPException) -> InputError:
    """What the framework refuses, as an error of ours."""
    if error.status_code == 404:
        return NotFoundError("request.unknown_address", "There is nothing at this address.", hint="See /api/docs.")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return InputError(
            "request.method", "This address does not know this method.", hint=f"Allowed: {allowed}." if allowed else ""
        )
    return InputError("request.invalid", f"{error.detail}.")


def unexpected(_: Request, __: Exception) -> JSONResponse:
    """An error nobody expected: the log has its traceback, the client a code."""
    text = "Something went wrong here that nobody expected; the server's log says what."
    return _answer(ReelsenseError("internal", text), 500, {})


def problem_document(error: ReelsenseError, status: int) -> dict[str, Any]:
    """An error as the body of an answer."""
    body = {"type": f"urn:reelsense:{error.code}", "title": error.message, "status": status, "code": error.code}
    return body | ({"detail": error.hint} if error.hint else {})


def counted(error: ReelsenseError) -> None:
    """Count an error that is answered."""
    measurements.count("reelsense_http_errors_total", code=error.code)
    if error.code.startswith("intake."):
        # Refused before there was a file to look at; what is refused for its content is counted by the intake.
        measurements.count("reelsense_uploads_refused_total", code=error.code)


def _answer(error: ReelsenseError, status: int, headers: dict[str, str]) -> JSONResponse:
    counted(error)
    return JSONResponse(
        problem_document(error, status),
        status,
        headers=headers,
        media_type="application/problem+json",
    )
