"""A viewer's feed: score the candidates, spread them out, keep the rules of a feed, and say why for those shown.

1. candidates   what the sources of recall found, or every published video; never what was seen or safety hides
2. shortlist    the best by a quick float32 pass, and the best that are unlike those (other topics, other creators)
3. score        the shortlist again in float64: named terms (`ranker.scoring`) under the objectives of one file
4. diversity    MMR or DPP over the best (`ranker.diversity`)
5. rules        caps within a window, and the entropy floor (`ranker.feed_rules`)
6. reasons      `ranker.explanations`
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ranker.diversity import diversify, greedy_mmr
from ranker.events import Event
from ranker.explanations import MATTERS, Reason, explain, name_paths
from ranker.feed_rules import Arranged, Key, arrange, hidden_rows, topic_keys
from ranker.found import Found, source_terms, sources_of, trial_rows, union
from ranker.objectives import Ranking
from ranker.profiles import Profile, build
from ranker.refusal_reasons import lowered
from ranker.refusals import Refused, refused_of
from ranker.row_facts import facts_of
from ranker.scoring import RankerConfig, Rows, Situation, score_terms
from ranker.video_table import Snapshot, VideoTable
from store.catalogue import StoredEvent
from store.errors import InputError

Float64 = npt.NDArray[np.float64]

# Beyond those wanted, so many candidates of the float32 pass are scored again in float64: more than rounding can
# misplace, and enough for the rules to choose from.
SPARE = 64
# The best so many that differ in topic, and in creator, from what leads the shortlist.
UNLIKE = 32
LEADING_SHARE = 0.2
# Of what looks for its audience, so many more than are shown: some are refused.
SPARE_TRIALS = 8
# For viewers of unknown taste: the freshest so many are spread out, in at most so many steps.
DIVERSE_POOL = 1000
DIVERSE_STEPS = 100
# The end of the year 9999.
LAST_TIME = 253_402_300_799.0


@dataclass(frozen=True)
class Recommendation:
    """One video of a feed. `terms` add up to `score` (`math.fsum`); `reasons` are those of `ranker.explanations`;
    `rules` say what moved it in the list; `sources` which sources of recall found it, and by which path."""

    video: str
    score: float
    terms: dict[str, float]
    reasons: list[Reason]
    rules: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The record as JSON."""
        return {
            "video": self.video,
            "score": self.score,
            "terms": self.terms,
            "reasons": self.reasons,
            "rules": self.rules,
            "sources": self.sources,
        }


def recommend(
    viewer: Sequence[Event | StoredEvent] | Profile,
    table: VideoTable,
    k: int,
    now: float,
    config: RankerConfig | Ranking | None = None,
    *,
    situation: Situation | None = None,
    gathered: Found | None = None,
) -> list[Recommendation]:
    """The `k` best unseen videos (fewer when there are no more), best first; ties go by video id.

    `viewer` is a profile or all events of one viewer (none: a new viewer, who gets fresh videos unlike each other);
    `now` is seconds since the epoch. `situation` is where the request comes from; without it, where the viewer's last
    event came from, as far as that is known. With `gathered`, only what its sources found is scored; when nothing of
    that is left to show, all videos are. Raises `request.invalid` for k below 1 or a time that is no number.
    """
    check(k, now)
    ranking = config if isinstance(config, Ranking) else Ranking(weights=config or RankerConfig())
    weights = ranking.weighted()
    profile = viewer if isinstance(viewer, Profile) else build(viewer, table)
    where = situation or (Situation() if isinstance(viewer, Profile) else situation_of(viewer))
    snapshot = table.snapshot
    rows = _shown(profile, snapshot, ranking, gathered)
    if not len(rows):
        return []
    refused = refused_of(profile, snapshot, now, weights, table)
    known = profile.long_mass > 0
    wanted = max(k, ranking.diversity.pool if known else DIVERSE_POOL) + SPARE
    trials = trial_rows(gathered, rows, ranking.rules.explored * (k // ranking.rules.window + 1) + SPARE_TRIALS)
    rows = np.union1d(_shortlist(profile, snapshot, rows, wanted, now, weights, where, refused, gathered), trials)
    terms = score_terms(profile, snapshot, rows, now, weights, situation=where, refused=refused)
    terms |= source_terms(gathered, rows, weights.sources)
    ids = [snapshot.ids[row] for row in rows]
    scores = np.sum(list(terms.values()), axis=0)
    order, terms["diversity"] = _spread(snapshot, rows, ids, scores, known, ranking, weights)
    welcome = np.isin(trials, rows[terms["refusal"] > -MATTERS])
    arranged = arrange(order, _keys(snapshot, rows), ranking.rules, k, np.searchsorted(rows, trials[welcome]).tolist())
    places = np.array(arranged.order, np.int64)
    terms = {name: values[places] for name, values in terms.items()}
    terms["rules"] = _falling(np.sum(list(terms.values()), axis=0))
    rows = rows[places]
    reasons = explain(profile, table, snapshot, rows, terms, now, weights, where)
    rules = _rules(arranged, ranking, lowered(snapshot, rows, terms, weights, refused))
    sources = sources_of(gathered, rows)
    name_paths(reasons, sources, snapshot)
    result = []
    for place, row in enumerate(rows):
        # Adding 0.0 turns -0.0 into 0.0.
        named = {name: float(values[place]) + 0.0 for name, values in terms.items()}
        score = math.fsum(named.values())
        result.append(Recommendation(snapshot.ids[row], score, named, reasons[place], rules[place], sources[place]))
    return result


def check(k: int, now: float) -> None:
    """Raises `request.invalid` for k below 1 or a time that no calendar has."""
    if k < 1 or not 0 <= now <= LAST_TIME:
        raise InputError("request.invalid", f"k must be at least 1 and the time a number, got {k} and {now}.")


def situation_of(events: Sequence[Event | StoredEvent]) -> Situation:
    """Where the viewer was last: region and language of the newest event that names them."""
    newest = sorted(events, key=lambda event: (event.at, event.id), reverse=True)
    regions = (getattr(event, "region", None) for event in newest)
    languages = (getattr(event, "language", None) for event in newest)
    return Situation(next(filter(None, regions), ""), next(filter(None, languages), ""))


def _shown(profile: Profile, snapshot: Snapshot, ranking: Ranking, gathered: Found | None) -> Rows:
    """The rows that may be shown, in the order of rows: those gathered, or all when none of those may."""
    seen = np.array([snapshot.row_of[name] for name in profile.seen if name in snapshot.row_of], np.int64)
    if gathered is not None:
        rows = union(gathered)
        rows = rows[(rows >= 0) & (rows < len(snapshot))]
        rows = rows[snapshot.alive[rows] & ~np.isin(rows, seen)]
        rows = rows[~hidden_rows(snapshot, rows, ranking.safety)]
        if len(rows):
            return rows
    unseen = snapshot.alive.copy()
    unseen[seen] = False
    every: Rows = np.flatnonzero(unseen)
    return every[~hidden_rows(snapshot, every, ranking.safety)]


def _shortlist(
    profile: Profile,
    snapshot: Snapshot,
    rows: Rows,
    count: int,
    now: float,
    config: RankerConfig,
    where: Situation,
    refused: Refused,
    gathered: Found | None,
) -> Rows:
    """The rows of the `count` best videos by the quick pass, of all that tie with the last of them, up to as many
    again, and of the best that are of another topic or creator than what leads; in the order of rows."""
    if len(rows) <= count:
        return rows
    # All rows of the table are multiplied in place, without copying them first.
    asked = None if 2 * len(rows) > len(snapshot) else rows
    terms = score_terms(profile, snapshot, asked, now, config, situation=where, refused=refused, exact=False)
    scores = np.zeros(len(snapshot) if asked is None else len(rows))
    for values in terms.values():
        scores += values
    if asked is None:
        scores = scores[rows]
    for values in source_terms(gathered, rows, config.sources).values():
        scores = scores + values
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above, tied = rows[scores > least], rows[scores == least]
    if len(tied) > 2 * count:
        tied = np.array(sorted(tied, key=lambda row: snapshot.ids[row])[: 2 * count])
    chosen = np.concatenate([above, tied])
    unlike = [_unlike(rows, scores, chosen, numbers) for numbers in (facts_of(snapshot).topics, snapshot.creators)]
    return np.unique(np.concatenate([chosen, *unlike]))


def _unlike(rows: Rows, scores: Float64, chosen: Rows, numbers: npt.NDArray[np.int64]) -> Rows:
    """The best rows whose number (topic, creator) does not lead among the chosen: what caps and entropy need."""
    names, counts = np.unique(numbers[chosen], return_counts=True)
    leading = names[counts >= LEADING_SHARE * len(chosen)]
    if not len(leading):
        return rows[:0]
    others = np.flatnonzero(~np.isin(numbers[rows], leading))
    if len(others) > UNLIKE:
        others = others[np.argpartition(-scores[others], UNLIKE)[:UNLIKE]]
    return rows[others]


def _spread(
    snapshot: Snapshot,
    rows: Rows,
    ids: Sequence[str],
    scores: Float64,
    known: bool,
    ranking: Ranking,
    weights: RankerConfig,
) -> tuple[list[int], Float64]:
    """Places in `rows`, best first, and the diversity term of all. Of viewers whose taste is known, the pool of the
    best is spread out and what is beyond it follows, pulled down to the last of the pool where it scored higher."""
    by_score = sorted(range(len(rows)), key=lambda place: (-scores[place], ids[place]))
    pool = by_score[: ranking.diversity.pool if known else len(rows)]
    vectors = snapshot.vectors[rows[pool]].astype(np.float64)
    names = [ids[place] for place in pool]
    if known:
        order, penalties = diversify(scores[pool], names, vectors, ranking.diversity, len(pool))
    else:
        order, penalties = greedy_mmr(scores[pool], names, vectors, weights.diversity, DIVERSE_STEPS)
    terms = np.zeros(len(rows))
    terms[pool] = penalties
    rest = by_score[len(pool) :]
    if rest:
        last = pool[order[-1]]
        terms[rest] = np.minimum(scores[last] + terms[last] - scores[rest], 0.0)
    return [*(pool[place] for place in order), *rest], terms


def _keys(snapshot: Snapshot, rows: Rows) -> dict[str, list[Key]]:
    """Creator, topic and sound of each row, None where not known."""
    said = [snapshot.rows[row] for row in rows]
    creators: list[Key] = [row.creator or None for row in said]
    sounds: list[Key] = [row.sound or None for row in said]
    return {"creator": creators, "topic": topic_keys(facts_of(snapshot), rows), "sound": sounds}


def _falling(scores: Float64) -> Float64:
    """What takes each score down to the lowest before it: 0 where a list is sorted."""
    return np.minimum(np.minimum.accumulate(scores) - scores, 0.0)


def _rules(
    arranged: Arranged, ranking: Ranking, refusals: Sequence[dict[str, Any] | None]
) -> list[list[dict[str, Any]]]:
    """What moved each of the shown videos, in words."""
    window = ranking.rules.window
    told: list[list[dict[str, Any]]] = []
    for place, refusal in zip(arranged.order, refusals, strict=True):
        said: list[dict[str, Any]] = [refusal] if refusal else []
        for name in sorted(arranged.capped.get(place, ())):
            cap = ranking.rules.caps()[name]
            text = f"Waited: at most {cap} videos of one {name} in {window} places."
            said.append({"rule": f"cap_{name}", "text": text, "cap": cap, "window": window})
        for rule, places, text in (
            ("entropy", arranged.lifted, "Brought forward, so that the feed is not about one thing alone."),
            ("exploration", arranged.tried, "Brought forward, as it looks for its audience."),
            ("made_room", arranged.made_room, "Made room for a video of another topic, or one that few have seen."),
        ):
            if place in places:
                said.append({"rule": rule, "text": text})
        told.append(said)
    return told
