"""The factorisation machine held to the sum over all pairs of features, and what context and tags do."""

from __future__ import annotations

import numpy as np
import pytest

from ranker.models.fm import FactorisationMachine
from ranker.models.training_data import ActLog, TrainingData
from tests.ranker.planted_factors import NEW_VIDEO, VIDEOS, VIEWERS, planted

FAST = {"dim": 6, "learning_rate": 0.05, "batch": 64, "epochs": 30, "l2": 0.01}
HOUR = 3600.0


def test_the_second_term_is_the_sum_over_all_pairs() -> None:
    data = planted()
    # Two tags a video, so that tags cross each other too.
    tags = data.content.tags.copy().tolil()
    tags[5, 0] = 1
    data = TrainingData(data.log, type(data.content)({}, tags.tocsr(), ("even", "odd")))
    model = FactorisationMachine(**FAST | {"epochs": 3})
    model.fit(data)
    arrays, viewer, video = model.arrays(), 1, 5
    last = data.log.at[data.log.starts[viewer + 1] - 1]
    hour, day = int(last % 86400 // 3600), int((last // 86400 + 3) % 7)
    root = np.sqrt(0.5)
    own = [arrays["own"][viewer], arrays["part_hours"][hour], arrays["part_days"][day]]
    of_video = [arrays["part_videos"][video], *(root * arrays["part_tags"])]
    expected = arrays["part_video_weights"][video] + root * arrays["part_tag_weights"].sum()
    expected += sum(float(a @ b) for a in own for b in of_video)
    expected += sum(float(a @ b) for place, a in enumerate(of_video) for b in of_video[:place])
    assert model.score(data.log, np.array([viewer]))[0, video] == pytest.approx(expected, abs=1e-5)
    names = {part.name for part in model.explain(data.log, viewer, video)}
    assert {"viewer x video", "viewer x tag 1", "hour x video", "day x tag 0", "tags x tags", "video x tag 0"} <= names


def test_a_video_without_acts_is_ranked_by_its_tags() -> None:
    data = planted()
    model = FactorisationMachine(**FAST)
    model.fit(data)
    scores = model.score(data.log, np.arange(VIEWERS))[:, NEW_VIDEO]
    # It is of the even taste.
    assert scores[::2].mean() > scores[1::2].mean()


def test_the_hour_of_the_last_act_counts() -> None:
    # Mornings are for even videos and evenings for odd ones, whoever watches.
    stream = np.random.default_rng(0)
    cells = np.argwhere(stream.random((VIEWERS, VIDEOS)) < 0.4)
    at = np.where(cells[:, 1] % 2 == 0, 8 * HOUR, 20 * HOUR) + 20_000 * 24 * HOUR
    log = ActLog.of(cells[:, 0], cells[:, 1], VIEWERS, VIDEOS, at=at)
    model = FactorisationMachine(**FAST)
    assert model.fit(TrainingData(log))["times"]
    asked = ActLog.of(
        np.array([0, 1]), np.array([0, 0]), VIEWERS, VIDEOS, at=np.array([8 * HOUR, 20 * HOUR]) + 20_003 * 24 * HOUR
    )
    morning, evening = model.score(asked, np.array([0, 1]))
    assert morning[::2].mean() > morning[1::2].mean()
    assert evening[1::2].mean() > evening[::2].mean()


def test_places_in_a_file_are_no_times() -> None:
    cells = np.argwhere(np.random.default_rng(0).random((VIEWERS, VIDEOS)) < 0.4)
    facts = FactorisationMachine(**FAST | {"epochs": 1}).fit(
        TrainingData(ActLog.of(cells[:, 0], cells[:, 1], VIEWERS, VIDEOS))
    )
    assert (facts["times"], facts["contexts"], facts["tags"]) == (False, VIEWERS, 0)
