"""SASRec on planted order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ranker.models.model import make_model
from store.errors import ReelsenseError
from tests.ranker import sequence_checks as checks
from tests.ranker.watch_chains import VIDEOS, ring_log

NAME = "sasrec"


def test_finds_what_comes_next_and_says_why() -> None:
    checks.says_why(checks.finds_the_ring(NAME, checks.TINY))


def test_scores_anybody_and_its_parts_add_up() -> None:
    checks.scores_anybody(NAME)


def test_same_seed_same_model_and_storing_changes_nothing() -> None:
    checks.is_the_same_again(NAME)


def test_refuses_parts_that_do_not_fit() -> None:
    checks.refuses_parts_that_do_not_fit(NAME)


def test_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    checks.goes_on_where_it_was_stopped(NAME, tmp_path / "checkpoint")


def test_learns_with_every_parameter() -> None:
    checks.learns_with_all_of_it(NAME)


def test_stops_by_the_judge() -> None:
    checks.stops_by_the_judge(NAME)


def test_refuses_bad_data() -> None:
    checks.refuses_bad_data(NAME)


def test_learns_from_drawn_candidates() -> None:
    checks.learns_from_draws(NAME)


def test_heads_must_fit() -> None:
    with pytest.raises(ReelsenseError) as caught:
        make_model(NAME, {"dim": 10, "heads": 4})
    assert caught.value.code == "request.invalid"


def test_videos_without_acts_get_the_floor() -> None:
    model = checks.learnt(NAME, checks.BRIEF)
    scores = model.score(ring_log(extra=2), np.array([0, 1]))
    assert (scores[:, VIDEOS:] == scores.min(axis=1, keepdims=True)).all()
