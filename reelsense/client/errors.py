"""What can go wrong between a program and the API.

ClientError
├── ApiError          the API refused, with a code of docs/errors.md
│   ├── NotFound          an id that names nothing (404)
│   ├── Refused           the key is missing, unknown, expired, or lacks a scope (401, 403)
│   └── Busy              too much for now (429, 503), still so after the last try
└── Unreachable       no answer at all, after the last try
"""

from __future__ import annotations

from reelsense.client.records import Problem


class ClientError(Exception):
    """Anything that this client raises."""


class ApiError(ClientError):
    """The API answered with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.title}")
        self.problem = problem

    @property
    def code(self) -> str:
        """The stable code, such as `video.unknown`."""
        return self.problem.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status


class NotFound(ApiError):
    """An id that names nothing."""


class Refused(ApiError):
    """The key is missing, unknown or expired, or may not do this."""


class Busy(ApiError):
    """Too much for now, still so after the last try; `retry_seconds` is when to come back."""

    def __init__(self, problem: Problem, retry_seconds: float) -> None:
        super().__init__(problem)
        self.retry_seconds = retry_seconds


class Unreachable(ClientError):
    """No answer: the address is wrong, or the API is away."""


def error_of(problem: Problem, retry_seconds: float) -> ApiError:
    """The error that a problem is."""
    if problem.status == 404:
        return NotFound(problem)
    if problem.status in (401, 403):
        return Refused(problem)
    if problem.status in (429, 503):
        return Busy(problem, retry_seconds)
    return ApiError(problem)
