"""One API, spoken to over HTTP: errors as exceptions, waiting where it asks to wait, and nothing done twice.

What is tried again: 429 and 503, after as long as `Retry-After` says (else longer each time), and broken connections,
for requests that do nothing twice: reads, deletions, and POSTs that carry an `Idempotency-Key`, which is made here.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from reelsense.client.errors import Unreachable, error_of
from reelsense.client.records import Problem

Answer = TypeVar("Answer", bound=BaseModel)
PREFIX = "/api/v1"
_SAFE = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))
_BUSY = frozenset((429, 503))


@dataclass(frozen=True)
class Retries:
    """How often and how long to wait for an API that is busy or away. `most_seconds` bounds one wait."""

    times: int = 5
    first_seconds: float = 0.25
    most_seconds: float = 30.0

    def wait(self, attempt: int, asked: float | None) -> float:
        """Seconds before the try after `attempt` (from 0); `asked` is what the API said."""
        if asked is not None:
            return min(asked, self.most_seconds)
        longest = min(self.first_seconds * 2.0**attempt, self.most_seconds)
        return float(longest * random.uniform(0.5, 1.0))  # many clients must not come back as one


class Connection:
    """Sends requests. `http` may be any `httpx2.Client` with the address of the API as its base."""

    def __init__(self, http: httpx2.Client, retries: Retries, sleep: Callable[[float], None] = time.sleep) -> None:
        self.http = http
        self.retries = retries
        self.sleep = sleep

    def send(
        self,
        method: str,
        path: str,
        *,
        once: bool = False,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> httpx2.Response:
        """The answer of a request that succeeded. `once`: a POST that creates something, which gets a key of its own so
        that trying again does it once. Raises ClientError."""
        sent = dict(headers or {}) | ({"Idempotency-Key": uuid.uuid4().hex} if once else {})
        repeatable = method in _SAFE or once
        for attempt in range(self.retries.times + 1):
            last = attempt == self.retries.times
            try:
                answer = self.http.request(method, path, headers=sent, **content)
            except httpx2.TransportError as error:
                if last or not (repeatable or isinstance(error, httpx2.ConnectError)):
                    raise Unreachable(f"{self.http.base_url} does not answer: {error}") from error
                self.sleep(self.retries.wait(attempt, None))
                continue
            asked = retry_after(answer)
            again = answer.status_code in _BUSY or (once and answer.status_code == 409 and _in_progress(answer))
            if again and not last:
                self.sleep(self.retries.wait(attempt, asked))
                continue
            if answer.is_success or answer.status_code == 304:
                return answer
            raise error_of(problem_of(answer), asked or self.retries.first_seconds)
        raise AssertionError("the last try neither answered nor raised")

    def get(self, kind: type[Answer], path: str, **parameters: Any) -> Answer:
        """A record that is read; parameters that are None are left out."""
        given = {name: value for name, value in parameters.items() if value is not None}
        return kind.model_validate_json(self.send("GET", path, params=given).content)

    def post(self, kind: type[Answer], path: str, *, once: bool = False, **content: Any) -> Answer:
        """A record that comes of a POST."""
        return kind.model_validate_json(self.send("POST", path, once=once, **content).content)


def retry_after(answer: httpx2.Response) -> float | None:
    """Seconds that the API asks to wait, None where it says nothing."""
    said = answer.headers.get("retry-after", "")
    return float(said) if said.isascii() and said.isdigit() else None


def problem_of(answer: httpx2.Response) -> Problem:
    """The problem of an answer; one is made up for what is not the API's own (a proxy's page, say)."""
    try:
        return Problem.model_validate_json(answer.content)
    except ValidationError:
        return Problem(
            type="about:blank",
            title=f"The answer {answer.status_code} is not one of this API.",
            status=answer.status_code,
            code="internal",
        )


def _in_progress(answer: httpx2.Response) -> bool:
    return problem_of(answer).code == "request.in_progress"
