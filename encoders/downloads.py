"""A file at an address, believed by its SHA-256 alone: fetched once into the cache, and never half."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from encoders.weights import file_sha256
from store.errors import ModelError

MOST_BYTES = 8 * 2**30
_BLOCK_BYTES = 1 << 20
_SILENCE_SECONDS = 60.0


def download(url: str, sha256: str, cache: Path, most_bytes: int = MOST_BYTES) -> Path:
    """Path of the file behind `url`, whose bytes have this SHA-256 (64 hex digits): CACHE/downloads/DIGEST/NAME.

    It is written aside and renamed, so that a reader sees the whole file or none and several processes may fetch at
    once. Nothing larger than `most_bytes` is taken. Raises `model.missing` (cannot be fetched) and `model.damaged`
    (other bytes, or more of them).
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ModelError("model.missing", f"{url} is not an http or https address.")
    target = cache / "downloads" / sha256.lower() / (Path(parts.path).name or "file")
    if target.is_file() and file_sha256(target) == sha256.lower():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, sha256.lower(), target, most_bytes)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ModelError(
            "model.missing",
            f"{url} cannot be fetched: {reason}.",
            hint=f"Start once where it can be reached, or put the file at {target}.",
        ) from error
    return target


def _fetch(url: str, sha256: str, target: Path, most_bytes: int) -> None:
    found, size = hashlib.sha256(), 0
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    aside = Path(name)
    try:
        with (
            os.fdopen(descriptor, "wb") as stream,
            _opener().open(url, timeout=_SILENCE_SECONDS) as answer,
        ):
            declared = answer.headers.get("Content-Length")
            while block := answer.read(_BLOCK_BYTES):
                size += len(block)
                if size > most_bytes:
                    raise ModelError("model.damaged", f"{url} gives more than the {most_bytes} bytes it may have.")
                found.update(block)
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        if declared is not None and size != int(declared):
            raise OSError(f"the answer ended after {size} of {declared} bytes")
        if found.hexdigest() != sha256:
            raise ModelError(
                "model.damaged",
                f"{url} gave bytes with the SHA-256 {found.hexdigest()}, not {sha256}.",
                hint="Check both the address and the digest; the file has been thrown away.",
            )
        aside.chmod(0o644)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """The library follows redirections to ftp as well."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"redirected to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_HttpOnly())
