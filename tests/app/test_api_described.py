"""The API against its own description: schemathesis makes requests of it, good and bad, and no answer is a failure of
the server, of another type than is said, or of another shape.

A few requests of each operation here, many in the slow tests; both end in time. Over a real installation without models
or broker: what would need those answers with a problem, which is described too.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from app.api import create_api
from app.operations import ReelSense
from store.settings import load_settings
from tests.app.test_http_manners import enter

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
# A stream of states has no end while its video waits, and a search loads a model: both have tests of their own; and
# without a broker an installation is not ready, and says so.
LEFT_OUT = ("/api/v1/videos/{video}/events", "/api/v1/search", "/health/ready", "/health/workers")


@pytest.fixture
def schema(tmp_path: Path) -> Any:
    house = ReelSense(load_settings(data=tmp_path, api_hosts="testserver"))
    for n in range(3):
        enter(house, f"video {n}", 1000.0 + n)
    return schemathesis.openapi.from_asgi("/api/openapi.json", create_api(house.settings))


def tried(schema: Any, examples: int, most_seconds: float, *, always_the_same: bool) -> tuple[list[str], list[str]]:
    """Which operations were tried, and what was wrong with some."""
    chosen = settings(
        max_examples=examples, deadline=None, derandomize=always_the_same, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    done: list[str] = []
    wrong: list[str] = []
    deadline = time.monotonic() + most_seconds
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path in LEFT_OUT or time.monotonic() > deadline:
            continue

        @chosen
        @given(case=operation.as_strategy())
        def check(case: Case) -> None:
            if time.monotonic() < deadline:
                case.call_and_validate(checks=CHECKS)

        try:
            check()
        except (Exception, BaseExceptionGroup) as error:  # each operation is told of, not the first alone
            wrong.append(f"{operation.label}: {getattr(error, 'exceptions', error)}")
        done.append(operation.label)
    return done, wrong


def test_no_request_breaks_it(schema: Any) -> None:
    done, wrong = tried(schema, 2, 60.0, always_the_same=True)
    assert not wrong, "\n\n".join(wrong)
    assert len(done) >= 20, done  # on the slowest machine


@pytest.mark.slow
def test_many_requests_do_not_break_it(schema: Any) -> None:
    done, wrong = tried(schema, 40, 200.0, always_the_same=False)
    assert not wrong, "\n\n".join(wrong)
    assert len(done) >= 20, done
