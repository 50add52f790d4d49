"""A viewer's feed: score every published video, leave out what was seen, and say why for those that are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ranker.events import Event
from ranker.explanations import Reason, explain
from ranker.profiles import Profile, build
from ranker.scoring import RankerConfig, Rows, score_terms
from ranker.video_table import Snapshot, VideoTable
from store.catalogue import StoredEvent
from store.errors import InputError

Float64 = npt.NDArray[np.float64]

# Beyond k, so many candidates of the float32 pass are scored again in float64: more than rounding can misplace.
SPARE = 64
# For viewers of unknown taste: the freshest so many are spread out, in at most so many steps.
DIVERSE_POOL = 1000
DIVERSE_STEPS = 100


@dataclass(frozen=True)
class Recommendation:
    """One video of a feed. `terms` add up to `score` (`math.fsum`); `reasons` are those of `ranker.explanations`."""

    video: str
    score: float
    terms: dict[str, float]
    reasons: list[Reason]

    def as_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return {"video": self.video, "score": self.score, "terms": self.terms, "reasons": self.reasons}


def recommend(
    viewer: Sequence[Event | StoredEvent] | Profile,
    table: VideoTable,
    k: int,
    now: float,
    config: RankerConfig | None = None,
) -> list[Recommendation]:
    """The `k` best unseen videos (fewer when there are no more), best first; ties go by video id.

    `viewer` is a profile or all events of one viewer (none: a new viewer, who gets fresh videos unlike each other);
    `now` is seconds since the epoch. Raises `request.invalid` for k below 1 or a time that is no number.
    """
    if k < 1 or not math.isfinite(now):
        raise InputError("request.invalid", f"k must be at least 1 and the time a number, got {k} and {now}.")
    chosen_config = config or RankerConfig()
    profile = viewer if isinstance(viewer, Profile) else build(viewer, table)
    snapshot = table.snapshot
    unseen = snapshot.alive.copy()
    unseen[[snapshot.row_of[name] for name in profile.seen if name in snapshot.row_of]] = False
    if not unseen.any():
        return []
    known = profile.long_mass > 0
    wanted = k if known else max(k, DIVERSE_POOL)
    rows = _shortlist(profile, snapshot, unseen, wanted + SPARE, now, chosen_config)
    terms = score_terms(profile, snapshot, rows, now, chosen_config)
    order = _ordered(snapshot, rows, terms)
    if known:
        order = order[:k]
    else:
        order, terms["diversity"] = _spread(snapshot, rows, terms, order, k, chosen_config.diversity)
    rows = rows[order]
    terms = {name: values[order] for name, values in terms.items()}
    reasons = explain(profile, table, snapshot, rows, terms, now, chosen_config)
    result = []
    for place, row in enumerate(rows):
        # Adding 0.0 turns -0.0 into 0.0.
        named = {name: float(values[place]) + 0.0 for name, values in terms.items()}
        result.append(Recommendation(snapshot.rows[row].id, math.fsum(named.values()), named, reasons[place]))
    return result


def _shortlist(
    profile: Profile, snapshot: Snapshot, unseen: npt.NDArray[np.bool_], count: int, now: float, config: RankerConfig
) -> Rows:
    """The rows of the `count` best unseen videos by the quick pass, and of all that tie with the last of them, up to
    as many again; in the order of rows."""
    rows: Rows = np.flatnonzero(unseen)
    if len(rows) <= count:
        return rows
    scores = np.zeros(len(snapshot))
    for values in score_terms(profile, snapshot, None, now, config).values():
        scores += values
    scores = scores[rows]
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above, tied = rows[scores > least], rows[scores == least]
    if len(tied) > 2 * count:
        tied = np.array(sorted(tied, key=lambda row: snapshot.rows[row].id)[: 2 * count])
    return np.sort(np.concatenate([above, tied]))


def _ordered(snapshot: Snapshot, rows: Rows, terms: dict[str, Float64]) -> Rows:
    """Places in `rows`, best score first, ties by video id."""
    scores = np.sum(list(terms.values()), axis=0)
    ids = [snapshot.rows[row].id for row in rows]
    return np.array(sorted(range(len(rows)), key=lambda place: (-scores[place], ids[place])), np.int64)


def _spread(
    snapshot: Snapshot, rows: Rows, terms: dict[str, Float64], order: Rows, k: int, weight: float
) -> tuple[Rows, Float64]:
    """Maximal marginal relevance (Carbonell & Goldstein 1998): pick the best, take from every other video `weight`
    times its largest cosine with those picked, and again. Returns the picked places and the diversity term of all.

    What is picked never scores above what was picked before it, so the list stays sorted by score.
    """
    scores = np.sum(list(terms.values()), axis=0)
    ids = [snapshot.rows[row].id for row in rows]
    vectors = snapshot.vectors[rows].astype(np.float64)
    nearest = np.zeros(len(rows))
    left = [int(place) for place in order]
    picked: list[int] = []
    while left and len(picked) < min(k, DIVERSE_STEPS):
        best = min(left, key=lambda place: (-(scores[place] - weight * nearest[place]), ids[place]))
        left.remove(best)
        picked.append(best)
        waiting = np.array(left, np.int64)
        nearest[waiting] = np.maximum(nearest[waiting], vectors[waiting] @ vectors[best])
    rest = sorted(left, key=lambda place: (-(scores[place] - weight * nearest[place]), ids[place]))
    picked += rest[: k - len(picked)]
    return np.array(picked, np.int64), -weight * nearest
