"""What came of each video that a viewer had: the labels of the heads that `ranker.models.multitask` learns.

A viewer's acts on one video are taken together: one example a pair. Which acts say what:

    view            the summed value is above 0: the video was taken up (against it stand videos the viewer never had)
    finish          nine tenths of the length were watched; a skip is none
    like            like or favourite                share           share or repost
    follow          follow                           not_interested  not_interested or report
    watch           how long it was watched, as a quantile in 0..1 among views of videos of like length

The watch label is D2Q's (`ranker.watch_time`) where the content gives lengths (`DURATION`); without them it is the
quantile of the watched share among all views, which still carries the bias of duration.

Data sets of ratings have none of these acts. Stand-ins take their place, and they are no more than that: finish for at
least three stars, like for four, share for five, not interested for at most two, and for the watch time the quantile of
the stars among those that the viewer gave. Data sets of mere pairs have the view alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ranker.events import KINDS
from ranker.models.training_data import ActLog, Content, Float32, Float64, Integers
from ranker.watch_time import WatchNorms

HEADS = ("view", "finish", "like", "share", "follow", "not_interested", "watch")
BINARY = HEADS[:-1]
# A modality of this name, float32 [n_videos, 1], is no modality: it holds lengths in seconds, 0 where not known.
DURATION = "duration_seconds"
FINISHED_SHARE = 0.9
ACTS = {
    "like": ("like", "favourite"),
    "share": ("share", "repost"),
    "follow": ("follow",),
    "not_interested": ("not_interested", "report"),
}
FINISH_STARS, LIKE_STARS, SHARE_STARS, REFUSED_STARS = 3.0, 4.0, 5.0, 2.0


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Pairs in order of viewer, then video. `viewers`, `videos` int64 [n]; `at` float64 [n], of the last act; `values`
    float32 [n], summed; `labels` float32 [n, len(HEADS)], nan where nothing is known; `pair_of` int64 [acts], the pair
    of each act of the log."""

    viewers: Integers
    videos: Integers
    at: Float64
    values: Float32
    labels: Float32
    pair_of: Integers

    def __len__(self) -> int:
        return len(self.viewers)


def durations_of(content: Content) -> Float64 | None:
    """float64 [n_videos] seconds, or none."""
    found = content.features.get(DURATION)
    return None if found is None else np.asarray(found, np.float64).reshape(len(found), -1)[:, 0]


def without_durations(content: Content) -> Content:
    """What the input models may take for modalities."""
    features = {name: rows for name, rows in content.features.items() if name != DURATION}
    return Content(features, content.tags, content.tag_names)


def taken(log: ActLog, kept: npt.NDArray[np.bool_]) -> ActLog:
    """The acts where `kept`, bool [acts], is true."""
    return ActLog(
        log.viewers[kept],
        log.videos[kept],
        log.at[kept],
        log.values[kept],
        log.watched[kept],
        log.kinds[kept],
        log.ratings[kept],
        log.n_viewers,
        log.n_videos,
    )


def outcomes_of(log: ActLog, norms: WatchNorms | None = None, durations: Float64 | None = None) -> Outcomes:
    """The labels of a log. `durations` float64 [n_videos] seconds and `norms`, how long such videos are watched, make
    the watch label; without norms the log's own views are the measure."""
    cells, pair_of = np.unique(log.viewers * log.n_videos + log.videos, return_inverse=True)
    n = len(cells)
    viewers, videos = cells // max(log.n_videos, 1), cells % max(log.n_videos, 1)
    at = np.full(n, -np.inf)
    np.maximum.at(at, pair_of, log.at)
    values = np.bincount(pair_of, log.values.astype(np.float64), n)
    labels = np.full((n, len(HEADS)), np.nan, np.float32)
    labels[:, 0] = values > 0
    _from_kinds(log, pair_of, labels)
    _from_ratings(log, pair_of, viewers, labels)
    watched = _greatest(log.watched, pair_of, n)
    known = np.isfinite(watched)
    if known.any():
        labels[known, -1] = _watch_quantiles(watched[known], videos[known], norms, durations)
    return Outcomes(viewers, videos, at, values.astype(np.float32), labels, pair_of.astype(np.int64))


def watch_norms(log: ActLog, durations: Float64 | None) -> WatchNorms | None:
    """How long the videos of a log are watched; none without lengths."""
    if durations is None:
        return None
    known = np.flatnonzero(np.isfinite(log.watched))
    lengths = durations[log.videos[known]]
    return WatchNorms.of(zip((log.watched[known] * lengths).tolist(), lengths.tolist(), strict=True))


def _from_kinds(log: ActLog, pair_of: Integers, labels: Float32) -> None:
    known = np.zeros(len(labels), bool)
    known[pair_of[log.kinds >= 0]] = True
    for head, kinds in ACTS.items():
        column = labels[:, HEADS.index(head)]
        column[known] = 0
        column[pair_of[np.isin(log.kinds, [KINDS.index(kind) for kind in kinds])]] = 1
    finish = labels[:, HEADS.index("finish")]
    finish[pair_of[log.kinds == KINDS.index("skip")]] = 0
    watched = _greatest(log.watched, pair_of, len(labels))
    measured = np.isfinite(watched)
    finish[measured] = watched[measured] >= FINISHED_SHARE


def _from_ratings(log: ActLog, pair_of: Integers, viewers: Integers, labels: Float32) -> None:
    stars = _greatest(log.ratings, pair_of, len(labels))
    rated = np.isfinite(stars)
    if not rated.any():
        return
    found = {
        "finish": stars >= FINISH_STARS,
        "like": stars >= LIKE_STARS,
        "share": stars >= SHARE_STARS,
        "not_interested": stars <= REFUSED_STARS,
        "watch": _ranks_within(stars, viewers, rated),
    }
    for head, values in found.items():
        column = labels[:, HEADS.index(head)]
        # What people did says more than what they answered.
        empty = rated & np.isnan(column)
        column[empty] = values[empty]


def _greatest(values: Float32, pair_of: Integers, n: int) -> Float64:
    """float64 [n]: the greatest known value of each pair, nan where none is known."""
    found = np.full(n, -np.inf)
    known = np.isfinite(values)
    np.maximum.at(found, pair_of[known], values[known].astype(np.float64))
    return np.where(np.isfinite(found), found, np.nan)


def _ranks_within(values: Float64, groups: Integers, known: npt.NDArray[np.bool_]) -> Float64:
    """float64 [n]: the share of the group's known values that is lower, half of the ties with it; nan where unknown."""
    order = np.flatnonzero(known)
    order = order[np.lexsort((values[order], groups[order]))]
    own, group = values[order], groups[order]
    first = np.flatnonzero(np.r_[True, (np.diff(own) != 0) | (np.diff(group) != 0)])
    ties = np.diff(np.r_[first, len(order)])
    begins = np.flatnonzero(np.r_[True, np.diff(group) != 0])
    sizes = np.diff(np.r_[begins, len(order)])
    of_group = np.repeat(np.arange(len(begins)), sizes)
    middle = np.repeat(first + ties / 2, ties)
    found = np.full(len(values), np.nan)
    found[order] = (middle - begins[of_group]) / sizes[of_group]
    return found


def _watch_quantiles(
    watched: Float64, videos: Integers, norms: WatchNorms | None, durations: Float64 | None
) -> Float64:
    everything = _ranks_within(watched, np.zeros(len(watched), np.int64), np.ones(len(watched), bool))
    if norms is None or durations is None:
        return everything
    lengths = durations[videos]
    found = [
        norms.quantile(share * length, length) if length > 0 else float(rank)
        for share, length, rank in zip(watched.tolist(), lengths.tolist(), everything.tolist(), strict=True)
    ]
    return np.array(found)
