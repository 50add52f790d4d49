"""SASRec over content, on planted order and on videos that nobody watched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ranker.models.model import make_model
from ranker.models.training_data import Content, TrainingData
from store.errors import ReelsenseError
from tests.ranker import sequence_checks as checks
from tests.ranker.watch_chains import VIDEOS, next_of, ring_log

NAME = "sasrec_content"


def test_finds_what_comes_next() -> None:
    checks.finds_the_ring(NAME, checks.TINY | {"hidden": 32, "epochs": 50})


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


def test_a_video_that_nobody_watched_ranks_where_its_content_lies() -> None:
    model = checks.learnt(NAME, checks.TINY | {"hidden": 32, "epochs": 60})
    log = ring_log(extra=2)
    scores = model.score(log, np.arange(log.n_viewers))
    # New videos 24 and 25 are like 12 and 13: they are ranked like those, and first for whom those come next.
    np.testing.assert_allclose(scores[:, VIDEOS], scores[:, VIDEOS // 2], atol=1e-4)
    right = np.flatnonzero(next_of(log) == VIDEOS // 2)
    assert len(right)
    assert (scores[right, VIDEOS] > np.median(scores[right], axis=1)).all()


def test_without_content_there_is_nothing_to_know_videos_by() -> None:
    for content in (Content(), Content({"place": np.zeros((VIDEOS, 3), np.float32)})):
        with pytest.raises(ReelsenseError) as caught:
            make_model(NAME, checks.BRIEF).fit(TrainingData(ring_log(), content))
        assert caught.value.code == "ranker.training_failed"
