"""Labels of heads: what acts and stars say came of a video; and the features block."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from ranker.events import KINDS
from ranker.models.task_examples import held_back
from ranker.models.task_features import VideoFacts, candidates, hashed_tags, ranks, standard
from ranker.models.task_outcomes import HEADS, Outcomes, outcomes_of, taken, watch_norms
from ranker.models.training_data import ActLog, Content
from ranker.watch_time import WatchNorms


def log_of(rows: list[tuple[int, int, str, float, float]], videos: int = 6) -> ActLog:
    """(viewer, video, kind, watched share, value)."""
    viewer, video, kind, watched, value = zip(*rows, strict=True)
    return ActLog.of(
        np.array(viewer), np.array(video), max(viewer) + 1, videos, values=np.array(value, np.float32),
        watched=np.array(watched, np.float32), kinds=np.array([KINDS.index(one) for one in kind], np.int8),  # type: ignore[arg-type]
    )  # fmt: skip


def labels(found: Outcomes, viewer: int, video: int) -> dict[str, float]:
    row = np.flatnonzero((found.viewers == viewer) & (found.videos == video))
    return dict(zip(HEADS, found.labels[row[0]].tolist(), strict=True))


def test_acts_on_one_video_are_one_example() -> None:
    nan = float("nan")
    found = outcomes_of(
        log_of(
            [
                (0, 3, "view", 0.3, 0.2),
                (0, 1, "view", 0.95, 0.9),
                (0, 1, "like", nan, 1.0),
                (0, 1, "repost", nan, 1.5),
                (1, 1, "skip", nan, -0.5),
                (1, 2, "view", 0.5, 0.4),
                (1, 2, "report", nan, -3.0),
                (1, 4, "follow", nan, 2.0),
            ]
        )
    )
    assert len(found) == 5
    assert labels(found, 0, 1) | {"watch": 0} == {
        "view": 1, "finish": 1, "like": 1, "share": 1, "follow": 0, "not_interested": 0, "watch": 0
    }  # fmt: skip
    assert labels(found, 0, 3)["finish"] == 0
    skipped = labels(found, 1, 1)
    assert (skipped["view"], skipped["finish"], skipped["like"]) == (0, 0, 0)
    assert np.isnan(skipped["watch"])
    assert labels(found, 1, 2)["not_interested"] == 1
    assert labels(found, 1, 2)["view"] == 0
    followed = labels(found, 1, 4)
    assert followed["follow"] == 1
    # Nobody knows how much of it was watched.
    assert np.isnan(followed["finish"])
    # The quantile of the watched share among the three known views.
    assert [labels(found, *pair)["watch"] for pair in ((0, 3), (1, 2), (0, 1))] == pytest.approx([1 / 6, 0.5, 5 / 6])


def test_stars_stand_in_where_there_are_no_acts() -> None:
    log = ActLog.of(
        np.array([0, 0, 0, 1]), np.array([0, 1, 2, 0]), 2, 3, ratings=np.array([2, 3, 5, np.nan], np.float32)
    )
    found = outcomes_of(log)
    assert [labels(found, 0, video)["finish"] for video in range(3)] == [0, 1, 1]
    assert [labels(found, 0, video)["like"] for video in range(3)] == [0, 0, 1]
    assert [labels(found, 0, video)["not_interested"] for video in range(3)] == [1, 0, 0]
    assert [labels(found, 0, video)["watch"] for video in range(3)] == pytest.approx([1 / 6, 0.5, 5 / 6])
    assert np.isnan(labels(found, 0, 0)["follow"])
    bare = labels(found, 1, 0)
    assert bare["view"] == 1
    assert all(np.isnan(bare[head]) for head in HEADS[1:])


def test_the_watch_label_is_of_videos_of_like_length() -> None:
    # Everybody watches 9 of 10 seconds, and 9 of 90: long videos are watched for a smaller share whatever they are.
    seconds = np.array([10.0, 90.0, 10.0, 90.0, 10.0, 90.0])
    stream = np.random.Generator(np.random.PCG64(0))
    rows = [
        (viewer, video, "view", float(stream.uniform(5, 9)) / seconds[video], 0.5)
        for viewer in range(100)
        for video in range(6)
    ]
    log = log_of(rows)
    norms = watch_norms(log, seconds)
    assert isinstance(norms, WatchNorms)
    assert norms.views == 600
    biased, fair = outcomes_of(log), outcomes_of(log, norms, seconds)
    long = biased.videos % 2 == 1
    assert biased.labels[~long, -1].mean() - biased.labels[long, -1].mean() > 0.45
    assert abs(fair.labels[~long, -1].mean() - fair.labels[long, -1].mean()) < 0.1


def test_some_acts_of_a_log() -> None:
    log = log_of([(0, 0, "view", 0.5, 1.0), (0, 1, "like", np.nan, 1.0), (1, 2, "view", 1.0, 1.0)])
    some = taken(log, np.array([True, False, True]))
    assert some.videos.tolist() == [0, 2]
    assert (some.n_viewers, some.n_videos) == (log.n_viewers, log.n_videos)


def test_folds_hold_every_pair_back_once_and_last_the_latest() -> None:
    viewers, videos = np.divmod(np.arange(50), 10)
    found = outcomes_of(ActLog.of(viewers, videos[::-1].copy(), 5, 10))
    fold = held_back(found, "folds", 5, 0.2, 0)
    assert np.bincount(fold).tolist() == [10] * 5
    late = held_back(found, "last", 5, 0.2, 0)
    for viewer in range(5):
        own = found.viewers == viewer
        assert sorted(found.at[own][late[own] == 0]) == sorted(found.at[own])[-2:]
    alone = outcomes_of(ActLog.of(np.array([0]), np.array([0]), 1, 1))
    assert held_back(alone, "last", 5, 0.5, 0).tolist() == [-1]


def test_ranks_count_unseen_videos_alone() -> None:
    scores = np.array([[0.9, 0.5, 0.5, 0.1, 0.7]])
    seen = np.array([[True, False, False, False, False]])
    assert ranks(scores, seen).tolist() == [[0, 1, 2, 3, 0]]
    assert standard(scores).mean() == pytest.approx(0, abs=1e-6)
    assert standard(np.full((1, 4), 0.1)).tolist() == [[0] * 4]


def test_candidates_are_the_union_of_the_best_and_as_many_unseen_as_asked() -> None:
    seen = np.zeros((1, 6), bool)
    seen[0, 0] = True
    one, other = np.array([[0, 0, 1, 2, 3, 4]]), np.array([[5, 4, 3, 2, 1, 0]])
    assert candidates([one, other], seen, 2).tolist() == [[True, True, False, False, False, True]]
    assert candidates([one, other], seen, 3).sum() == 5
    assert candidates([one], seen, 99).all()


def test_rates_are_drawn_to_the_mean_and_come_back_from_arrays() -> None:
    found = outcomes_of(
        log_of([(0, 0, "view", 1.0, 1.0), (1, 0, "view", 1.0, 1.0), (0, 1, "view", 0.1, 0.1), (1, 2, "view", 0.1, 0.1)])
    )
    facts = VideoFacts.of(found, 6)
    assert facts.base[0] == pytest.approx(0.5)
    assert facts.rates[:, 0] == pytest.approx([4.5 / 7, 2.5 / 6, 2.5 / 6, 0.5, 0.5, 0.5])
    assert np.isnan(facts.first_at[3:]).all()
    again = VideoFacts.from_arrays(facts.arrays())
    assert np.array_equal(again.first_at, facts.first_at, equal_nan=True)
    assert all(np.isfinite(array).all() for array in facts.arrays().values())


def test_tags_are_hashed_by_name() -> None:
    tags = sparse.csr_matrix(np.array([[1, 1, 0], [0, 0, 0], [0, 0, 2]], np.float32))
    found = hashed_tags(Content({}, tags, ("a", "b", "c")), 3, 16)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 0, 1])
    turned = hashed_tags(Content({}, tags[:, [2, 1, 0]], ("c", "b", "a")), 3, 16)
    assert np.array_equal(found, turned)
    assert hashed_tags(Content(), 3, 16).shape == (3, 16)
