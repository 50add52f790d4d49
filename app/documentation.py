"""The description of the API (OpenAPI 3.1) at `/api/openapi.json`, and the same for people at `/api/docs`.

FastAPI makes the bones of it from the routes. Added here is what it does not know: that every error is a problem detail
with a code, that a key may be needed, which headers are understood everywhere, and what answers look like: the examples
in `app/examples.json` are real answers of a real installation, taken by `bench/api_examples.py`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response

from app.access import Access
from app.idempotency import creates
from app.site import Site
from reelsense.client.records import Problem

EXAMPLES = Path(__file__).parent / "examples.json"
METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
SUMMARY = """Understands short videos and the people who watch them.

Errors are problem details (RFC 9457) whose `code` is stable. With keys, send `Authorization: Bearer KEY`. Reads carry
an `ETag`; `If-None-Match` saves the rest. Answers say in `RateLimit` how much is left, and 429 and 503 in `Retry-After`
when to come back. A POST that creates something understands `Idempotency-Key`: sent again, it is done once."""
_PROBLEM = {
    "description": "An error, as problem details (RFC 9457).",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Any text of your own: the same request with the same key is done once, and answered alike.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "example": "5f0c8d2e-upload-1",
}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "ETags that you have already; 304 when nothing changed.",
    "schema": {"type": "string", "pattern": "^[!-~ ]*$"},
}


def documentation_routes(api: FastAPI, access: Access, site: Site) -> APIRouter:
    """Both, for who may read."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(access.require("read"))])
    described = cache(lambda: describe(api))

    @router.get("/api/openapi.json")
    def schema() -> Response:
        """The description of this API."""
        return JSONResponse(described())

    @router.get("/api/docs")
    def page(request: Request) -> Response:
        """The same for people: one page without script, of this host alone."""
        return site.page(request, "api_docs.html", {"groups": grouped(described()), "about": SUMMARY.split("\n\n")})

    return router


def describe(api: FastAPI) -> dict[str, Any]:
    """The OpenAPI document."""
    document = get_openapi(title="ReelSense", version=api.version, description=SUMMARY, routes=api.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}, {}]
    examples = json.loads(EXAMPLES.read_text()) if EXAMPLES.is_file() else {}
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                _complete(item[method], method, path, examples.get(f"{method.upper()} {path}", {}))
    return document


def _complete(operation: dict[str, Any], method: str, path: str, example: dict[str, Any]) -> None:
    responses = operation["responses"]
    # FastAPI's own 422 describes an answer that this API never gives.
    responses.pop("422", None)
    responses["4XX"] = responses["5XX"] = _PROBLEM
    if creates(method, path):
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    if method == "get" and path.startswith("/api/v1/"):
        operation.setdefault("parameters", []).append(_IF_NONE_MATCH)
        responses.setdefault("304", {"description": "Nothing changed since the ETag that you have."})
    if path.startswith("/health/"):
        operation["security"] = []
    for status, answer in responses.items():
        content = answer.get("content", {}).get("application/json")
        if content is not None and "response" in example and status.startswith("2"):
            content["example"] = example["response"]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None and "request" in example:
        body["example"] = example["request"]
    for parameter in operation.get("parameters", []):
        if parameter["name"] in example.get("parameters", {}):
            parameter["example"] = example["parameters"][parameter["name"]]


def grouped(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What the page shows: operations by their first tag."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, item in document["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            operation = item[method]
            groups.setdefault((operation.get("tags") or ["monitoring"])[0], []).append(
                {
                    "method": method.upper(),
                    "path": path,
                    "about": operation.get("description") or operation.get("summary", ""),
                    "parameters": [_parameter(said) for said in operation.get("parameters", [])],
                    "request": _example(operation.get("requestBody", {})),
                    "response": next(
                        (
                            text
                            for status, answer in operation["responses"].items()
                            if status.startswith("2") and (text := _example(answer))
                        ),
                        "",
                    ),
                }
            )
    return groups


def _parameter(said: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": said["name"],
        "where": said["in"],
        "needed": said.get("required", False),
        "about": said.get("description", ""),
        "example": said.get("example"),
    }


def _example(part: dict[str, Any]) -> str:
    for content in part.get("content", {}).values():
        if "example" in content:
            return json.dumps(content["example"], indent=2, ensure_ascii=False)
    return ""
