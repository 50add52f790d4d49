"""Parting the acts of a catalogue into what is learnt from, what choices are made by, and what is held back to the end.

    global time       the last tenth of all acts is test, the tenth before it validation: as in service
    leave last out    of each viewer the last act is test, the one before it validation
    random            of each viewer a tenth each, whatever the time: leaks the future, and says so

What is repeated counts as one: an act on a video that its viewer already had in an earlier part (training before
validation before test) is no discovery, and is dropped from the later part. A viewer without acts in training stays in
the later parts, and is counted (`without_training`): models fall back for him as their docstrings say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ranker.models.training_data import ActLog, Integers
from store.errors import InputError

SHARE = 0.1
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Parted:
    """`train`, `valid`, `test`: acts of the same viewers and videos. `without_training`: viewers of validation or test
    who have no act with a value above 0 in training; `repeats`: acts that were dropped from validation and test because
    their viewer had the video before. `valid` and `test` hold acts of interest alone; `acts`: all of test, refusals and
    repeats too, which heads are measured on."""

    name: str
    train: ActLog
    valid: ActLog
    test: ActLog
    acts: ActLog
    without_training: int
    repeats: int

    @property
    def later(self) -> ActLog:
        """Training and validation together."""
        return joined(self.train, self.valid)

    def facts(self) -> dict[str, Any]:
        """For results."""
        return {
            "split": self.name,
            "train": len(self.train),
            "valid": len(self.valid),
            "test": len(self.test),
            "viewers_without_training": self.without_training,
            "repeats_dropped": self.repeats,
        }


def global_time(log: ActLog, share: float = SHARE) -> Parted:
    """Acts in order of time, cut twice. Acts of one moment stay together, in the later part."""
    times = np.sort(log.at)
    first, second = times[_cut(len(log), 2 * share)], times[_cut(len(log), share)]
    return _parted("global_time", log, log.at >= first, log.at >= second)


def leave_last_out(log: ActLog) -> Parted:
    """Of each viewer with three positive acts or more, the last positive one and the one before it; of others
    nothing is held back. Acts between and behind them (skips) go with the part before."""
    positive = np.flatnonzero(log.values > 0)
    owners = log.viewers[positive]
    ends = np.searchsorted(owners, np.arange(log.n_viewers), side="right")
    enough = np.diff(np.searchsorted(owners, np.arange(log.n_viewers + 1))) >= 3
    behind = np.full(len(log), 1 << 40)
    behind[positive] = ends[owners] - 1 - np.arange(len(positive))
    asked = enough[log.viewers]
    # What a viewer did after his validation act is no history of it: skips there are dropped from training.
    first = np.full(log.n_viewers, len(log))
    first[log.viewers[asked & (behind == 1)]] = np.flatnonzero(asked & (behind == 1))
    tail = np.arange(len(log)) > first[log.viewers]
    dropped = tail & ~(asked & (behind <= 1))
    return _parted(
        "leave_last_out", kept(log, ~dropped), *_flags(dropped, asked & (behind <= 1), asked & (behind == 0))
    )


def random(log: ActLog, share: float = SHARE, seed: int = 0) -> Parted:
    """Of each viewer with three acts or more, `share` of them (one at least) to validation and to test each."""
    label = np.zeros(len(log), np.int64)
    for viewer in range(log.n_viewers):
        mine = np.arange(log.starts[viewer], log.starts[viewer + 1])
        if len(mine) < 3:
            continue
        drawn = np.random.Generator(np.random.PCG64([seed, viewer])).permutation(mine)
        tenth = max(1, round(share * len(mine)))
        label[drawn[:tenth]], label[drawn[tenth : 2 * tenth]] = 2, 1
    return _parted("random", log, label >= 1, label == 2)


SPLITS: dict[str, Callable[..., Parted]] = {
    "global_time": global_time,
    "leave_last_out": leave_last_out,
    "random": random,
}


def split(name: str, log: ActLog, seed: int = 0) -> Parted:
    """By its name, and checked. Raises `request.invalid` for an unknown name, `ranker.too_few_events` where a part
    would be empty, `ranker.training_failed` for a part that leaks (a fault of this module)."""
    if name not in SPLITS:
        raise InputError("request.invalid", f"There is no split {name[:40]!r}.", hint=f"One of {sorted(SPLITS)}.")
    if len(log) < 5:
        raise _too_few(len(log))
    found = random(log, seed=seed) if name == "random" else SPLITS[name](log)
    if not all(int((part.values > 0).sum()) for part in (found.train, found.valid, found.test)):
        raise _too_few(len(log))
    if leaks := leakage(found):
        raise InputError("ranker.training_failed", f"The split leaks: {leaks[0]}.")
    return found


def leakage(parted: Parted) -> list[str]:
    """What a split gives away, a sentence each; none of one that is sound.

    A pair of viewer and video in two parts; for global time an act in training that is not before all of validation,
    or one of validation not before all of test; for leave-last-out the same within each viewer.
    """
    found = []
    parts = {"training": parted.train, "validation": parted.valid, "test": parted.test}
    keys = {name: np.unique(log.viewers * log.n_videos + log.videos) for name, log in parts.items()}
    for earlier, later in (("training", "validation"), ("training", "test"), ("validation", "test")):
        common = np.intersect1d(keys[earlier], keys[later])
        if len(common):
            found.append(f"{len(common)} pairs of a viewer and a video are in {earlier} and in {later}")
        one, other = parts[earlier], parts[later]
        if not len(one) or not len(other):
            continue
        if parted.name == "global_time" and one.at.max() >= other.at.min():
            found.append(f"an act of {earlier} is as late as the first of {later}")
        if parted.name == "leave_last_out":
            last, first = np.full(one.n_viewers, -np.inf), np.full(one.n_viewers, np.inf)
            np.maximum.at(last, one.viewers, one.at)
            np.minimum.at(first, other.viewers, other.at)
            if wrong := int((last > first).sum()):
                found.append(f"{wrong} viewers have acts in {earlier} after those in {later}")
    return found


def joined(first: ActLog, second: ActLog) -> ActLog:
    """Both logs' acts, of the same viewers and videos."""
    return ActLog.of(
        np.concatenate([first.viewers, second.viewers]),
        np.concatenate([first.videos, second.videos]),
        first.n_viewers,
        first.n_videos,
        at=np.concatenate([first.at, second.at]),
        values=np.concatenate([first.values, second.values]),
        watched=np.concatenate([first.watched, second.watched]),
        kinds=np.concatenate([first.kinds, second.kinds]),
        ratings=np.concatenate([first.ratings, second.ratings]),
    )


def kept(log: ActLog, places: Flags | Integers) -> ActLog:
    """Some of a log's acts: bool [acts], or their numbers in order."""
    return replace(
        log,
        viewers=log.viewers[places],
        videos=log.videos[places],
        at=log.at[places],
        values=log.values[places],
        watched=log.watched[places],
        kinds=log.kinds[places],
        ratings=log.ratings[places],
    )


def _cut(n: int, share: float) -> int:
    return min(max(n - max(1, round(share * n)), 0), n - 1)


def _flags(dropped: Flags, *flags: Flags) -> tuple[Flags, ...]:
    return tuple(part[~dropped] for part in flags)


def _parted(name: str, log: ActLog, held: Flags, last: Flags) -> Parted:
    """Parts by flags: `last` (a part of `held`) is test, the rest of `held` validation. Only acts of interest are held
    back; a pair that an earlier part has is dropped."""
    train = kept(log, ~held)
    keys = log.viewers * log.n_videos + log.videos
    valid = held & ~last & (log.values > 0) & ~np.isin(keys, keys[~held])
    test = last & (log.values > 0) & ~np.isin(keys, keys[~held]) & ~np.isin(keys, keys[valid])
    repeats = int((held & (log.values > 0)).sum() - valid.sum() - test.sum())
    known = np.zeros(log.n_viewers, bool)
    known[train.viewers[train.values > 0]] = True
    asked = np.unique(log.viewers[valid | test])
    return Parted(name, train, kept(log, valid), kept(log, test), kept(log, last), int((~known[asked]).sum()), repeats)


def _too_few(n: int) -> InputError:
    return InputError(
        "ranker.too_few_events",
        f"There are {n} acts, too few to hold some of them back.",
        hint="Take in more events first.",
    )
