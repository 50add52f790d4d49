"""Sources side by side: a late, failing or lying one is left out, and the feed has all the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from ranker.candidates import BUSY, FAILED, LATE, MOST_LATE, Candidates, Gatherer, Request, gather
from ranker.profiles import Profile
from store.errors import CODES, PassingError
from tests.ranker.builders import NOON, World


@dataclass
class Given:
    """A source of the tests: does first what it is told to."""

    name: str
    rows: list[int]
    before: Callable[[], None] = lambda: None

    def find(self, request: Request, quota: int) -> Candidates:  # noqa: ARG002
        self.before()
        return Candidates(self.name, np.array(self.rows, np.int64), -np.arange(len(self.rows), dtype=np.float64))


def fails(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.fixture
def request_(tastes: World) -> Request:
    snapshot = tastes.table.snapshot
    return Request(Profile(), snapshot, NOON, snapshot.alive.copy(), viewer="ann")


def test_all_that_answer_are_in_and_each_row_knows_its_sources(request_: Request) -> None:
    found = gather([(Given("a", [1, 2]), 5), (Given("b", [2, 3]), 5)], request_, 1.0)
    assert found.rows.tolist() == [1, 2, 3]
    assert found.sources_of(2) == ("a", "b")
    assert found.left_out == {}
    assert set(found.seconds) == {"a", "b"}


def test_a_source_that_raises_is_left_out_with_its_code(request_: Request) -> None:
    sources = [
        (Given("coded", [1], fails(PassingError("database.unavailable", "Gone."))), 5),
        (Given("broken", [1], fails(ZeroDivisionError())), 5),
        (Given("well", [3]), 5),
    ]
    found = gather(sources, request_, 1.0)
    assert found.left_out == {"coded": "database.unavailable", "broken": FAILED}
    assert found.rows.tolist() == [3]


def test_a_source_that_sleeps_is_left_out_and_costs_the_budget_alone(request_: Request) -> None:
    awake = threading.Event()
    started = time.monotonic()
    found = gather([(Given("asleep", [1], lambda: awake.wait(20) and None), 5), (Given("well", [3]), 5)], request_, 0.1)
    assert time.monotonic() - started < 5
    awake.set()
    assert found.left_out == {"asleep": LATE}
    assert found.rows.tolist() == [3]


def test_a_source_that_hangs_is_not_asked_again_until_it_returns(request_: Request) -> None:
    awake = threading.Event()
    gatherer = Gatherer(8)
    sources = [(Given("asleep", [1], lambda: awake.wait(20) and None), 5), (Given("well", [3]), 5)]
    codes = [gatherer.gather(sources, request_, 0.05).left_out["asleep"] for _ in range(MOST_LATE + 2)]
    assert codes == [LATE] * MOST_LATE + [BUSY] * 2
    awake.set()
    for _ in range(100):
        if not gatherer.gather(sources, request_, 1.0).left_out:
            break
        time.sleep(0.02)
    else:
        pytest.fail("a source that returned is asked again")
    gatherer.close()


def test_what_may_not_be_shown_is_taken_out_whatever_a_source_says(request_: Request) -> None:
    request_.unseen[2] = False
    found = gather([(Given("lies", [2, 5, -1, 10_000, 4, 3]), 2)], request_, 1.0)
    assert found.rows.tolist() == [4, 5]


def test_no_sources_and_no_quota(request_: Request) -> None:
    assert gather([], request_, 0.1).rows.tolist() == []
    assert gather([(Given("a", [1]), 0)], request_, 0.1).rows.tolist() == []


def test_codes_are_declared() -> None:
    assert {LATE, FAILED, BUSY} <= CODES.keys()
