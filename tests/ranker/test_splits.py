"""Splits of a catalogue's own acts: what they hold back, and that one which leaks is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.models.training_data import ActLog
from ranker.splits import SPLITS, Parted, global_time, joined, leakage, leave_last_out, random, split
from store.errors import InputError


def a_log(seed: int, acts: int = 120, viewers: int = 9, videos: int = 25, moments: int = 60) -> ActLog:
    """Acts with ties in time, repeats, and some against the video."""
    stream = np.random.default_rng(seed)
    return ActLog.of(
        stream.integers(viewers, size=acts),
        stream.integers(videos, size=acts),
        viewers,
        videos,
        at=stream.integers(moments, size=acts).astype(float),
        values=stream.choice([-0.5, 0.3, 1.0], size=acts, p=[0.2, 0.4, 0.4]).astype(np.float32),
    )


def rows(log: ActLog) -> list[tuple[int, int, float]]:
    return list(zip(log.viewers.tolist(), log.videos.tolist(), log.at.tolist(), strict=True))


def parts(found: Parted) -> list[list[tuple[int, int, float]]]:
    return [rows(part) for part in (found.train, found.valid, found.test)]


@pytest.mark.parametrize("name", sorted(SPLITS))
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_no_split_leaks(name: str, seed: int) -> None:
    log = a_log(seed)
    found = SPLITS[name](log)
    assert leakage(found) == []
    assert (found.valid.values > 0).all()
    assert (found.test.values > 0).all()
    everything = rows(log)
    assert all(row in everything for part in parts(found) for row in part)
    known = set(found.train.viewers[found.train.values > 0].tolist())
    asked = set(found.valid.viewers.tolist()) | set(found.test.viewers.tolist())
    assert found.without_training == len(asked - known)


def test_global_time_by_hand() -> None:
    log = ActLog.of(np.arange(20) % 2, np.arange(20), 2, 20, at=np.arange(20, dtype=float)[::-1])
    found = global_time(log)
    assert sorted(found.test.at.tolist()) == [18, 19]
    assert sorted(found.valid.at.tolist()) == [16, 17]
    assert len(found.train) == 16


def test_acts_of_one_moment_stay_together() -> None:
    found = global_time(
        ActLog.of(np.zeros(10, int), np.arange(10), 1, 10, at=np.array([0, 1, 2, 3, 4, 5, 6, 7, 7, 7.0]))
    )
    assert len(found.test) == 3
    assert leakage(found) == []


def test_leave_last_out_by_hand() -> None:
    # The first viewer: likes 0, 1, skips 2, likes 3, skips 4, likes 5, skips 6. The second has two acts only.
    log = ActLog.of(
        np.array([0, 0, 0, 0, 0, 0, 0, 1, 1]),
        np.array([0, 1, 2, 3, 4, 5, 6, 0, 1]),
        2,
        7,
        values=np.array([1, 1, -1, 1, -1, 1, -1, 1, 1], np.float32),
    )
    found = leave_last_out(log)
    assert [[video for _, video, _ in part] for part in parts(found)] == [[0, 1, 2, 0, 1], [3], [5]]
    assert leakage(found) == []


def test_random_holds_back_a_tenth_of_each_viewer_and_repeats_itself() -> None:
    log = ActLog.of(np.repeat([0, 1, 2], [20, 20, 2]), np.concatenate([np.arange(20)] * 2 + [[0, 1]]), 3, 20)
    found = random(log, seed=4)
    assert [np.bincount(part.viewers, minlength=3).tolist() for part in (found.train, found.valid, found.test)] == [
        [16, 16, 2],
        [2, 2, 0],
        [2, 2, 0],
    ]
    assert parts(found) == parts(random(log, seed=4))
    assert parts(found) != parts(random(log, seed=5))


def test_a_video_had_before_is_nothing_to_find() -> None:
    log = ActLog.of(np.zeros(12, int), np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 11]), 1, 12)
    found = global_time(log, share=0.1)
    assert found.test.videos.tolist() == [11]
    assert found.valid.videos.tolist() == []
    assert found.repeats == 1
    assert found.facts()["repeats_dropped"] == 1


def test_viewers_without_training_are_counted() -> None:
    log = ActLog.of(np.array([0] * 18 + [1, 2]), np.arange(20), 3, 20, at=np.arange(20, dtype=float))
    found = global_time(log)
    assert found.without_training == 2
    assert found.facts()["viewers_without_training"] == 2


def test_an_act_of_test_in_training_is_caught() -> None:
    found = global_time(a_log(1))
    leaky = replace(found, train=joined(found.train, found.test))
    said = " / ".join(leakage(leaky))
    assert "are in training and in test" in said
    assert "an act of training is as late as the first of test" in said


def test_a_random_split_called_global_time_is_caught() -> None:
    said = leakage(replace(random(a_log(2)), name="global_time"))
    assert any("as late as the first of validation" in one for one in said)


def test_training_after_the_last_act_is_caught() -> None:
    log = ActLog.of(np.zeros(6, int), np.arange(6), 1, 6, at=np.arange(6, dtype=float))
    found = leave_last_out(log)
    after = ActLog.of(np.array([0]), np.array([0]), 1, 6, at=np.array([9.0]))
    train = joined(replace_videos(found.train), after)
    assert any(
        "1 viewers have acts in training after those in test" in one for one in leakage(replace(found, train=train))
    )


def replace_videos(log: ActLog) -> ActLog:
    kept = log.videos != 0
    names = ("viewers", "videos", "at", "values", "watched", "kinds", "ratings")
    return replace(log, **{name: getattr(log, name)[kept] for name in names})


def test_too_few_acts_and_unknown_splits_are_told() -> None:
    with pytest.raises(InputError) as few:
        split("random", a_log(3, acts=3))
    assert few.value.code == "ranker.too_few_events"
    with pytest.raises(InputError) as nothing_held:
        split("leave_last_out", ActLog.of(np.arange(8), np.arange(8), 8, 8))
    assert nothing_held.value.code == "ranker.too_few_events"
    with pytest.raises(InputError) as unknown:
        split("by_moon", a_log(3))
    assert unknown.value.code == "request.invalid"
    assert split("leave_last_out", a_log(3)).facts()["split"] == "leave_last_out"
