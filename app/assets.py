"""What pages load beside themselves: the style sheets, scripts and pictures of `app/pages`, under `/assets/NAME`.

They hold nothing of anybody, so they need no key. The ETag is the digest of the content; a page names it in the address
too (`?v=DIGEST`), and what is asked for by its digest may be kept for ever.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

PAGES = Path(__file__).parent / "pages"
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FOR_EVER = "public, max-age=31536000, immutable"
ASKED_AGAIN = "public, no-cache"


@dataclass(frozen=True)
class Asset:
    """One file; `digest` names its content."""

    content: bytes
    media_type: str
    digest: str


@cache
def assets() -> dict[str, Asset]:
    """Every asset by its name, read once in the life of a process."""
    found = {}
    for path in sorted(PAGES.iterdir()):
        if path.suffix in MEDIA_TYPES:
            content = path.read_bytes()
            found[path.name] = Asset(content, MEDIA_TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:16])
    return found


def address(name: str) -> str:
    """Where a page finds an asset. A name that is none is an error of the page's author: KeyError."""
    return f"/assets/{name}?v={assets()[name].digest}"


def asset_routes() -> APIRouter:
    """`/assets/NAME`."""
    router = APIRouter(include_in_schema=False)

    @router.get("/assets/{name}")
    def asset(request: Request, name: str, v: str = "") -> Response:
        found = assets().get(name)
        if found is None:
            return Response(status_code=404)
        headers = {
            "etag": f'"{found.digest}"',
            "cache-control": FOR_EVER if v == found.digest else ASKED_AGAIN,
        }
        if headers["etag"] in (tag.strip() for tag in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=headers)
        return Response(found.content, headers=headers, media_type=found.media_type)

    return router
