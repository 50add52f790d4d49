"""The protocol for new videos: nothing of them reaches training, and they alone are ranked."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench.learning_data import Dataset
from bench.new_videos import measure_new, new_video_tasks, without
from ranker.models.model import Model, make_model
from ranker.models.training_data import ActLog, TrainingData
from ranker.splits import joined


def dataset(split: str, cold: int = 0, videos: int = 400) -> Dataset:
    """Each part holds acts of 60 viewers; the last `cold` videos are in validation and test only."""
    stream = np.random.default_rng(4)

    def log(most: int, each: int) -> ActLog:
        cells = np.array([[viewer, video] for viewer in range(60) for video in stream.choice(most, each, False)])
        return ActLog.of(cells[:, 0], cells[:, 1], 60, videos)

    train, valid, test = log(videos - cold, 40), log(videos, 6), log(videos, 6)
    return Dataset("planted", split, TrainingData(train), valid, test, joined(train, valid))


def test_drawn_videos_are_missing_from_training_and_found_again() -> None:
    whole = dataset("random")
    validation, test = new_video_tasks(whole)
    assert len(test.candidates) == len(validation.candidates) == 80
    assert not np.intersect1d(test.candidates, validation.candidates).size
    for task, removed in ((test, test.candidates), (validation, np.union1d(test.candidates, validation.candidates))):
        assert not np.isin(task.data.log.videos, removed).any()
        assert len(task.data.log) == int((~np.isin(whole.data.log.videos, removed)).sum())
        assert np.isin(task.held.videos, task.candidates).all()
    everything = joined(whole.later, whole.test)
    assert len(test.held) == int(np.isin(everything.videos, test.candidates).sum())
    assert set(test.candidates) == set(np.random.default_rng(2026).permutation(400)[:80])


def test_videos_that_are_cold_by_themselves_are_the_test() -> None:
    whole = dataset("given", cold=120)
    validation, test = new_video_tasks(whole)
    assert test.candidates.tolist() == np.flatnonzero(~whole.data.seen_videos).tolist()
    assert len(test.data.log) == len(whole.data.log)
    assert len(test.held) == int(np.isin(whole.test.videos, test.candidates).sum())
    assert len(validation.candidates) == len(test.candidates)
    assert whole.data.seen_videos[validation.candidates].all()
    assert not np.isin(validation.data.log.videos, validation.candidates).any()


class Knowing:
    """Scores what is held, or nothing, and everything else above it."""

    def __init__(self, held: ActLog, candidates: npt.NDArray[Any]) -> None:
        self.held, self.candidates = held, candidates

    def score(self, log: ActLog, viewers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found = np.full((len(viewers), log.n_videos), 9.0, np.float32)
        found[:, self.candidates] = self.held.binary[viewers][:, self.candidates].toarray()
        return found


def test_only_the_candidates_are_ranked() -> None:
    _, test = new_video_tasks(dataset("random"))
    knowing: Model = Knowing(test.held, test.candidates)  # type: ignore[assignment]
    assert measure_new(test, knowing, (20,)).means()["recall@20"] == pytest.approx(1.0, abs=0.02)
    assert measure_new(test, knowing, (20,)).means()["ndcg@20"] == 1.0


def test_what_no_act_names_leaves_popularity_at_chance() -> None:
    _, test = new_video_tasks(dataset("random"))
    model = make_model("popularity")
    model.fit(test.data)
    assert measure_new(test, model, (20,)).means()["recall@20"] == pytest.approx(20 / 80, abs=0.05)


def test_acts_of_other_videos_stay() -> None:
    log = dataset("random").data.log
    some = np.arange(5)
    assert len(without(log, some)) + int(np.isin(log.videos, some).sum()) == len(log)
