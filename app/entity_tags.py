"""ETags: names of an answer's content, by which a client that has it already is told so (304), RFC 9110 section 13."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi import Response

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


def has_already(header: str | None, tag: str) -> bool:
    """Whether a client's `If-None-Match` names this ETag (weak comparison), or any."""
    header = header or ""
    return header.strip() == "*" or tag.removeprefix("W/") in {
        found.removeprefix("W/") for found in _TAG.findall(header)
    }


def not_modified(headers: Mapping[str, str]) -> Response:
    """The answer to who has it already: `headers` are those of the answer with the content."""
    return Response(status_code=304, headers=dict(headers))
