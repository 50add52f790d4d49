"""What sequence models read of a log: buckets, windows, what is to be said where."""

from __future__ import annotations

import numpy as np
import pytest

from ranker.models.training_data import ActLog
from ranker.models.watch_sequences import (
    Sequences,
    acts_of,
    cut,
    fingerprint,
    newest,
    share_buckets,
    time_buckets,
    windows_of,
    without_each,
)
from tests.ranker.watch_chains import ring_log


def _mixed() -> ActLog:
    # Viewer 0 has three acts, viewer 1 none, viewer 2 two, the second of them against the video.
    return ActLog.of(
        np.array([0, 0, 0, 2, 2]),
        np.array([3, 1, 2, 0, 4]),
        3,
        5,
        at=np.array([0.0, 1.0, 101.0, 5.0, 6.0]),
        values=np.array([1, 1, 1, 1, -0.5], np.float32),
        watched=np.array([1.0, 0.05, np.nan, 1.7, 0.31], np.float32),
        kinds=np.array([0, 1, -1, 0, 7], np.int8),
        ratings=np.array([5, np.nan, 1, np.nan, np.nan], np.float32),
    )


def test_times_fall_into_octaves() -> None:
    assert time_buckets(np.array([-3.0, 0.0, 1.0, 2.9, 3.0, 1e12])).tolist() == [1, 1, 2, 2, 3, 31]


def test_shares_fall_into_tenths_and_what_is_not_known_stays_apart() -> None:
    shares = np.array([np.nan, 0.0, 0.05, 0.31, 0.999, 1.0, 1.01, 40.0], np.float32)
    assert share_buckets(shares).tolist() == [0, 1, 1, 4, 10, 10, 11, 11]


def test_a_step_reads_the_act_before_it_and_says_the_act_at_it() -> None:
    sequences = Sequences.of(_mixed(), np.ones(5, bool))
    windows = windows_of(sequences, np.array([0 * 6 + 3, 3 * 6 + 2]), 5)
    assert windows.videos.tolist() == [[5, 3, 1], [5, 0, 5]]
    assert windows.targets.tolist() == [[3, 1, 2], [0, 4, 0]]
    # An act against a video goes in later, and is not to be said.
    assert windows.learnt.tolist() == [[True, True, True], [True, False, False]]
    assert windows.gaps.tolist() == [[0, 0, 2], [0, 0, 0]]
    assert windows.shares.tolist() == [[0, 10, 1], [0, 11, 0]]
    assert windows.kinds.tolist() == [[0, 1, 2], [0, 1, 0]]
    assert windows.stars.tolist() == [[0, 11, 0], [0, 0, 0]]


def test_the_newest_window_ends_after_the_newest_act() -> None:
    sequences = Sequences.of(_mixed(), np.ones(5, bool))
    windows = newest(sequences, np.array([0, 1, 2]), 3)
    assert windows.videos[0].tolist() == [3, 1, 2]
    assert windows.videos[1, 0] == 5
    assert windows.videos[2].tolist() == [5, 0, 4]
    assert windows.last.tolist() == [2, 0, 2]
    assert not windows.learnt[1].any()


def test_unknown_videos_share_one_row_and_are_not_said() -> None:
    sequences = Sequences.of(_mixed(), np.array([True, True, False]))
    assert sequences.videos.tolist() == [4, 1, 4, 0, 4]
    assert sequences.right.tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("context", [1, 4, 5, 30])
def test_an_epoch_learns_every_step_once(context: int) -> None:
    log = ring_log(viewers=7, length=11)
    sequences = Sequences.of(log, np.ones(log.n_videos, bool))
    for epoch in range(3):
        windows = windows_of(sequences, cut(sequences, context, 0, epoch), context)
        assert windows.videos.shape[1] <= context
        said = np.bincount(windows.targets[windows.learnt], minlength=log.n_videos)
        assert said.tolist() == np.bincount(log.videos, minlength=log.n_videos).tolist()
    assert cut(sequences, 4, 0, 1).tolist() == cut(sequences, 4, 0, 1).tolist()
    assert cut(sequences, 4, 0, 1).tolist() != cut(sequences, 4, 0, 2).tolist()


def test_a_log_without_acts_gives_marks_alone() -> None:
    empty = ActLog.of(np.zeros(0, np.int64), np.zeros(0, np.int64), 2, 3)
    sequences = Sequences.of(empty, np.ones(3, bool))
    assert newest(sequences, np.array([0, 1]), 5).videos.tolist() == [[3], [3]]
    assert len(cut(sequences, 5, 0, 0)) == 0


def test_a_fingerprint_tells_every_act() -> None:
    log = _mixed()
    other = ActLog(log.viewers, log.videos, log.at, log.values, log.watched, log.kinds, np.ones(5, np.float32), 3, 5)
    assert fingerprint(log) == fingerprint(_mixed())
    assert fingerprint(log) != fingerprint(other)


def test_some_viewers_acts_and_one_viewer_without_each_video() -> None:
    log = _mixed()
    some = acts_of(log, np.array([2, 1, 0, 2]))
    assert some.viewers.tolist() == [0, 0, 2, 2, 2, 3, 3]
    assert some.videos.tolist() == [0, 4, 3, 1, 2, 0, 4]
    assert some.values.tolist() == [1, -0.5, 1, 1, 1, 1, -0.5]
    assert some.starts.tolist() == [0, 2, 2, 5, 7]
    assert len(acts_of(log, np.zeros(0, np.int64))) == 0
    variants = without_each(acts_of(log, np.array([0])), np.array([1, 3]))
    assert variants.videos.tolist() == [3, 2, 1, 2]
    assert variants.viewers.tolist() == [0, 0, 1, 1]
