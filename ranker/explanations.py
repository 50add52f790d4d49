"""Why a video is recommended: reasons that name only what raised its score, as data and as a sentence.

Each reason is a dict with `kind`, `text` (the sentence), and `effect`: how much of the score it accounts for.

watched_video     the watched video that this one resembles most, of those without which its score would be lower;
                  `effect` is how much lower, from scoring it again for the same viewer without that video
moment            the modality and second that make the two alike (part of the same effect; it has none of its own)
interest          the one of the viewer's interests that it suits; `effect` against the next best of them
tags              tags shared with what was watched, each with what it adds to the `tags` term; `effect` is how much
                  lower the score is for a viewer of whom these tags are not known
followed_creator  the viewer follows its creator
region, language  of the request, or of where the viewer has been
source            a source of recall found it, with the path; `effect` is what that adds
small_creator     its creator has few videos
fresh, new_viewer why it is shown to a viewer of whom nothing is known
unexplored        none of the above: the best of what is left
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ranker import tag_index
from ranker.contributions import Contribution
from ranker.found import PREFIX
from ranker.moments import called, moment
from ranker.profiles import LONG_HALF_LIFE_SECONDS, RECENT_HALF_LIFE_SECONDS, Profile, watched_of, without
from ranker.refusals import refused_of
from ranker.row_facts import primary
from ranker.scoring import (
    NOWHERE,
    RankerConfig,
    Rows,
    Situation,
    confidence,
    confidences,
    interest_confidences,
    interests_of,
    score_terms,
    small_creators,
)
from ranker.video_table import Snapshot, VideoRow, VideoTable

Float64 = npt.NDArray[np.float64]
Reason = dict[str, Any]

# A watched video is named when the score would be at least this much lower without it.
MATTERS = 1e-3
NAMED_TAGS = 3
NEAREST_TRIED = 3
HEAVIEST_TRIED = 2
# Of the videos a viewer watched, the heaviest so many may be named; and where naming one means to build the viewer's
# interests anew without it, so many of them are tried in one feed.
MOST_ANCHORS = 500
MOST_REBUILT = 5
# A creator is small while `small_creator` gives at least this share.
SMALL = 0.5
MOST_MOMENTS = 100
# Of a profile that is more than this a start (`ranker.newcomers`), nobody says that the viewer watches such things.
MOSTLY = 0.5
ACTS: dict[str, str] = {
    "finish": "you finished",
    "view": "you watched",
    "like": "you liked",
    "comment": "you commented on",
    "favourite": "you marked as a favourite",
    "repost": "you reposted",
    "share": "you shared",
    "follow": "made you follow its creator",
}


def explain(
    profile: Profile,
    table: VideoTable,
    snapshot: Snapshot,
    rows: Rows,
    terms: Mapping[str, Float64],
    now: float,
    config: RankerConfig,
    where: Situation = NOWHERE,
) -> list[list[Reason]]:
    """The reasons of each of `rows`; every row has at least one. `terms` are the rows' own, `config` the weights that
    made them."""
    known = profile.long_mass > 0
    anchors = _anchors(profile, table, snapshot, rows, now, config) if known else [None] * len(rows)
    long, _, _ = confidences(profile, now, config)
    tags_length = tag_index.length(profile.tags)
    interests = _interests(profile, snapshot, rows, now, config)
    small = small_creators(snapshot, rows, config) >= SMALL
    result = []
    for place, row_number in enumerate(rows):
        row = snapshot.rows[row_number]
        reasons: list[Reason] = []
        if (anchor := anchors[place]) is not None:
            reasons.append(anchor)
            if place < MOST_MOMENTS:
                reasons.extend(moment(table, row, snapshot.rows[snapshot.row_of[anchor["video"]]]))
        reasons.extend(interests[place])
        reasons.extend(_tags(profile, tags_length, row, snapshot, config.tags * long))
        if (followed := float(terms["followed_creator"][place])) > 0:
            text = f"By {row.creator}, whom you follow."
            reasons.append({"kind": "followed_creator", "text": text, "creator": row.creator, "effect": followed})
        reasons.extend(_placed(row, where, float(terms["region"][place]), float(terms["language"][place])))
        for name, values in terms.items():
            if name.startswith(PREFIX) and values[place] >= MATTERS:
                reasons.append(_source(profile, name.removeprefix(PREFIX), float(values[place])))
        if small[place] and (added := float(terms["small_creator"][place])) >= MATTERS:
            text = f"By {row.creator}, who has few videos yet."
            reasons.append({"kind": "small_creator", "text": text, "creator": row.creator, "effect": added})
        if not known:
            reasons.extend(_unknown_viewer(row, float(terms["freshness"][place]), now))
        result.append(reasons or [_unexplored(row)])
    return result


def _anchors(
    profile: Profile, table: VideoTable, snapshot: Snapshot, rows: Rows, now: float, config: RankerConfig
) -> list[Reason | None]:
    """For each row the `watched_video` reason, where there is one."""
    parts = profile.contributions
    names = [name for name, part in parts.items() if part.long > 0 and name in snapshot.row_of]
    names = sorted(names, key=lambda name: (-parts[name].long, name))[:MOST_ANCHORS]
    if not names:
        return [None] * len(rows)
    names.sort()
    places = np.array([snapshot.row_of[name] for name in names])
    heaviness = np.array([parts[name].long + parts[name].recent for name in names])
    drops = _Drops(profile, snapshot, rows, names, places, now, config)
    tried = _candidates(drops.alike, heaviness)
    effects = np.full((len(rows), len(names)), -np.inf)
    for place, indices in enumerate(tried):
        for index in indices:
            effects[place, index] = drops.of(place, index)
    if interests_of(profile) and config.interest:
        tried = _nearest_that_matters(tried, effects, drops.alike)
    _add_rebuilt(effects, tried, profile, table, snapshot, rows, names, now, config)
    found: list[Reason | None] = []
    for place, indices in enumerate(tried):
        mattering = [index for index in indices if effects[place, index] >= MATTERS]
        if not mattering:
            found.append(None)
            continue
        best = max(mattering, key=lambda index: (drops.alike[place, index], names[index]))
        anchor, alike = snapshot.rows[places[best]], float(drops.alike[place, best])
        found.append(_watched_video(profile, anchor, alike, float(effects[place, best])))
    return found


def _add_rebuilt(
    effects: Float64,
    tried: Sequence[Sequence[int]],
    profile: Profile,
    table: VideoTable,
    snapshot: Snapshot,
    rows: Rows,
    names: Sequence[str],
    now: float,
    config: RankerConfig,
) -> None:
    """What does not follow from sums: the several interests without a video, and videos that were also refused or whose
    creator was followed from them. For these the profile is built without the video."""
    several = _interest_values(profile, snapshot, rows, now, config)
    full: Float64 | None = None
    for index in sorted({index for indices in tried for index in indices}):
        part, video = profile.contributions[names[index]], watched_of(snapshot, names[index])
        more = bool(part.negative or part.followed)
        if video is None or not (more or several.any()):
            continue
        touched = np.array([place for place, indices in enumerate(tried) if index in indices])
        reduced = without(profile, names[index], video)
        if more:
            full = _totals(profile, table, snapshot, rows, now, config) if full is None else full
            effects[touched, index] = full[touched] - _totals(reduced, table, snapshot, rows[touched], now, config)
        else:
            less = _interest_values(reduced, snapshot, rows[touched], now, config)
            effects[touched, index] += several.max(axis=1)[touched] - less.max(axis=1, initial=0.0)


def _nearest_that_matters(tried: list[list[int]], effects: Float64, alike: Float64) -> list[list[int]]:
    """For each row at most one video, and at most `MOST_REBUILT` different ones over all rows."""
    chosen: list[list[int]] = []
    different: set[int] = set()
    for place, indices in enumerate(tried):
        mattering = [index for index in indices if effects[place, index] >= MATTERS]
        if len(different) >= MOST_REBUILT:
            mattering = [index for index in mattering if index in different]
        best = max(mattering, key=lambda index: (alike[place, index], -index), default=None)
        chosen.append([] if best is None else [best])
        different.update(chosen[-1])
    return chosen


class _Drops:
    """How much lower each row's score would be had the viewer not watched a video: in closed form, from sums alone.

    Without the video, an interest is the sum less `w v`, so that its product with a row, its length and its mass follow
    from products that are known; the same for tags. `alike` float64 [rows, videos] is the cosine of the two.
    """

    def __init__(
        self,
        profile: Profile,
        snapshot: Snapshot,
        rows: Rows,
        names: Sequence[str],
        places: Rows,
        now: float,
        config: RankerConfig,
    ) -> None:
        age = now - profile.as_of
        vectors = snapshot.vectors[places].astype(np.float64)
        # One product for each row: a reason must not change with k.
        chosen = snapshot.vectors[rows].astype(np.float64)[:, None, :]
        self.alike: Float64 = np.matmul(chosen, vectors.T)[:, 0, :]
        self.rows = [snapshot.rows[row] for row in rows]
        self.watched = [snapshot.rows[place] for place in places]
        self.parts: list[Contribution] = [profile.contributions[name] for name in names]
        self.tags = profile.tags
        self.index = snapshot.tags
        self.tags_length = tag_index.length(profile.tags)
        self.vectors = np.zeros((len(rows), len(names)))
        for total, mass, weights, weight, half_life in (
            (profile.long, profile.long_mass, [part.long for part in self.parts], config.interest_long,
             LONG_HALF_LIFE_SECONDS),
            (profile.recent, profile.recent_mass, [part.recent for part in self.parts], config.interest_recent,
             RECENT_HALF_LIFE_SECONDS),
        ):  # fmt: skip
            squared = float(total @ total)
            # What has faded for so long that its length underflows has no direction in the score either.
            if not weight or not squared > 0:
                continue
            w = np.array(weights)
            with_total = np.matmul(chosen, total)[:, 0]
            sure = confidence(mass, age, half_life, config.half_mass)
            less = np.array([confidence(max(mass - part, 0.0), age, half_life, config.half_mass) for part in weights])
            left = squared - 2 * w * (vectors @ total) + w**2 * np.einsum("nd,nd->n", vectors, vectors)
            # What is left of a sum that was this video alone is rounding.
            there = left > 1e-12 * squared
            lengths = np.sqrt(np.where(there, left, 1.0))
            after = np.where(there, (with_total[:, None] - w * self.alike) / lengths, 0.0)
            self.vectors += weight * (sure * with_total[:, None] / np.sqrt(squared) - less * after)
        self.tag_sure = config.tags * confidence(profile.long_mass, age, LONG_HALF_LIFE_SECONDS, config.half_mass)
        self.tag_less = [
            config.tags
            * confidence(max(profile.long_mass - part.long, 0.0), age, LONG_HALF_LIFE_SECONDS, config.half_mass)
            for part in self.parts
        ]
        self._asked: dict[int, dict[str, float]] = {}
        self._lengths: dict[int, float] = {}

    def of(self, place: int, index: int) -> float:
        """The drop of one row for one video."""
        return float(self.vectors[place, index]) + self._tag_drop(place, index)

    def _tag_drop(self, place: int, index: int) -> float:
        if not self.tags_length or not self.tag_sure:
            return 0.0
        asked = self._row(place)
        before = sum(weight * self.tags.get(tag, 0.0) for tag, weight in asked.items())
        own, w = self.watched[index].tags, self.parts[index].long
        after = sum(weight * max(self.tags.get(tag, 0.0) - w * own.get(tag, 0.0), 0.0) for tag, weight in asked.items())
        length = self._length(index)
        return self.tag_sure * before / self.tags_length - (self.tag_less[index] * after / length if length else 0.0)

    def _row(self, place: int) -> dict[str, float]:
        if place not in self._asked:
            tags = self.rows[place].tags
            norm = tag_index.length(tags)
            self._asked[place] = {
                tag: weight / norm * self.index.rarity(tag)
                for tag, weight in tags.items()
                if weight > 0 and self.tags.get(tag, 0.0) > 0
            }
        return self._asked[place]

    def _length(self, index: int) -> float:
        """The length of the viewer's tags without this video's."""
        if index not in self._lengths:
            w, squared = self.parts[index].long, self.tags_length**2
            for tag, weight in self.watched[index].tags.items():
                had = self.tags.get(tag, 0.0)
                squared += max(had - w * weight, 0.0) ** 2 - had**2
            # Cancelled to rounding: sum again what is left.
            if squared < 1e-6 * self.tags_length**2:
                own = self.watched[index].tags
                left = {tag: had - w * own.get(tag, 0.0) for tag, had in self.tags.items()}
                squared = sum(had**2 for had in left.values() if had > 1e-12)
            self._lengths[index] = float(np.sqrt(max(squared, 0.0)))
        return self._lengths[index]


def _candidates(alike: Float64, heaviness: Float64) -> list[list[int]]:
    """For each row the nearest watched videos, and those that add most: few enough to try each."""
    nearest = _largest(alike, NEAREST_TRIED)
    heaviest = _largest(alike * heaviness, HEAVIEST_TRIED)
    return [sorted({*one, *other}) for one, other in zip(nearest.tolist(), heaviest.tolist(), strict=True)]


def _largest(values: Float64, count: int) -> Rows:
    """int64 [n, count]: the columns of the largest values of each row, in no order."""
    if values.shape[1] <= count:
        return np.tile(np.arange(values.shape[1]), (len(values), 1))
    return np.argpartition(-values, count - 1, axis=1)[:, :count]


def _totals(
    profile: Profile, table: VideoTable, snapshot: Snapshot, rows: Rows, now: float, config: RankerConfig
) -> Float64:
    refused = refused_of(profile, snapshot, now, config, table)
    terms = score_terms(profile, snapshot, rows, now, config, refused=refused)
    total: Float64 = np.sum(list(terms.values()), axis=0)
    return total


def _watched_video(profile: Profile, anchor: VideoRow, similarity: float, effect: float) -> Reason:
    act = profile.contributions[anchor.id].act
    return {
        "kind": "watched_video",
        "text": f"Resembles {called(anchor)}, which {ACTS.get(act, 'you watched')}.",
        "video": anchor.id,
        "title": anchor.title,
        "act": act,
        "similarity": similarity,
        "effect": effect,
    }


def _tags(profile: Profile, length: float, row: VideoRow, snapshot: Snapshot, weight: float) -> list[Reason]:
    wanted = profile.tags
    shares = tag_index.shares(wanted, length, row.tags, snapshot.tags)
    adding = {tag: weight * share for tag, share in shares.items() if weight * share >= MATTERS}
    if not adding:
        return []
    total = weight * sum(shares.values())
    # Without a tag the others weigh more in the viewer's taste, so that it may matter little: then name more of them.
    for count in range(min(NAMED_TAGS, len(adding)), len(shares) + 1):
        named = dict(list(shares.items())[:count])
        left = _length_without(wanted, length, named)
        rest = weight * (sum(shares.values()) - sum(named.values())) * (length / left if left else 0.0)
        if total - rest >= MATTERS:
            break
    told = {tag: weight * share for tag, share in named.items()}
    text = f"{_whose(profile, told)} videos about {_listed(list(told)[:NAMED_TAGS])}."
    return [{"kind": "tags", "text": text, "tags": told, "effect": total - rest}]


def _whose(profile: Profile, told: Mapping[str, float]) -> str:
    """Who is said to like what these tags name: most of their weight was watched, picked, or is that of others."""
    total = sum(profile.tags[tag] for tag in told)
    borrowed = sum(profile.start_tags.get(tag, 0.0) for tag in told)
    if borrowed <= MOSTLY * total:
        return "You watch"
    picked = sum(interest.mass * interest.tags.get(tag, 0.0) for interest in profile.given for tag in told)
    return "You picked" if picked > MOSTLY * borrowed else "Viewers near you often watch"


def _length_without(wanted: Mapping[str, float], length: float, named: Mapping[str, float]) -> float:
    left = length**2 - sum(wanted[tag] ** 2 for tag in named)
    if left < 1e-6 * length**2:
        # Cancelled to rounding: sum again what is left.
        return tag_index.length({tag: had for tag, had in wanted.items() if tag not in named})
    return float(np.sqrt(left))


def _interest_cosines(profile: Profile, snapshot: Snapshot, rows: Rows) -> Float64:
    """float64 [n, interests]."""
    directions = np.stack([np.asarray(item.vector, np.float64) for item in interests_of(profile)], axis=1)
    cosines: Float64 = np.matmul(snapshot.vectors[rows].astype(np.float64)[:, None, :], directions)[:, 0, :]
    return cosines


def _interest_values(profile: Profile, snapshot: Snapshot, rows: Rows, now: float, config: RankerConfig) -> Float64:
    """float64 [n, interests]: what the `interest` term would be by each interest alone."""
    if not interests_of(profile) or not config.interest:
        return np.zeros((len(rows), 1))
    cosines = _interest_cosines(profile, snapshot, rows)
    return config.interest * interest_confidences(profile, now, config) * np.maximum(cosines, 0.0)


def _interests(
    profile: Profile, snapshot: Snapshot, rows: Rows, now: float, config: RankerConfig
) -> list[list[Reason]]:
    """For each row the interest it suits best, where the score would be lower without it."""
    interests = interests_of(profile)
    if not interests or not config.interest:
        return [[] for _ in rows]
    alike, values = _interest_cosines(profile, snapshot, rows), _interest_values(profile, snapshot, rows, now, config)
    found: list[list[Reason]] = []
    for place in range(len(rows)):
        best = int(np.argmax(values[place]))
        effect = float(values[place, best] - np.delete(values[place], best).max(initial=0.0))
        if effect < MATTERS:
            found.append([])
            continue
        interest = interests[best]
        tags = sorted(interest.tags, key=lambda tag: (-interest.tags[tag], tag))[:NAMED_TAGS]
        picked = any(interests[best] is one for one in profile.given)
        which = "what you picked" if picked else "one of your interests"
        text = f"Suits {which}: {_listed(tags)}." if tags else f"Suits {which}."
        said: Reason = {"kind": "interest", "text": text, "tags": tags, "videos": list(interest.videos[:NAMED_TAGS])}
        found.append([said | {"number": best, "similarity": float(alike[place, best]), "effect": effect}])
    return found


def _placed(row: VideoRow, where: Situation, region: float, language: float) -> list[Reason]:
    reasons: list[Reason] = []
    if region >= MATTERS:
        text = f"From {row.region}, where you {'are' if row.region == where.region else 'often are'}."
        reasons.append({"kind": "region", "text": text, "region": row.region, "effect": region})
    if language >= MATTERS:
        asked = primary(row.language) == primary(where.language)
        text = f"In {row.language}, {'your language' if asked else 'like much that you watch'}."
        reasons.append({"kind": "language", "text": text, "language": row.language, "effect": language})
    return reasons


SOURCE_TEXTS: dict[str, str] = {
    "interest": "Among the nearest to what you watch.",
    "co_watch": "Watched by those who watch what you watch.",
    "graph": "Near you in the graph of viewers, videos, creators, topics and sounds.",
    "similar_viewers": "Watched by viewers whose taste is like yours.",
    "followed": "New from those whom you follow.",
    "trending": "Watched at present.",
    "fresh": "New, and looking for its audience.",
    "model": "Ranked high for you by what was learnt from what viewers watch.",
}


def _source(profile: Profile, name: str, effect: float) -> Reason:
    text = SOURCE_TEXTS.get(name, f"Found by {name}.")
    if name == "interest" and profile.start_share > MOSTLY:
        picked = sum(interest.mass for interest in profile.given) > MOSTLY * profile.start_share * profile.long_mass
        text = f"Among the nearest to what {'you picked' if picked else 'viewers near you often watch'}."
    return {"kind": "source", "text": text, "source": name, "effect": effect}


def name_paths(
    reasons: Sequence[list[Reason]], sources: Sequence[Sequence[Mapping[str, Any]]], snapshot: Snapshot
) -> None:
    """Add to each `source` reason the path by which that source came to the video, where it tells."""
    for said, found in zip(reasons, sources, strict=True):
        paths = {item["source"]: item["path"] for item in found if "path" in item}
        for reason in said:
            if reason["kind"] == "source" and (path := paths.get(reason["source"])):
                reason["path"] = path
                steps = " → ".join(_step(step, snapshot) for step in path)
                reason["text"] = f"{reason['text'][:-1]}: {steps}."


def _step(step: str, snapshot: Snapshot) -> str:
    """One node of a path (`kind:name`) in words."""
    kind, _, name = step.partition(":")
    if kind == "trending":
        return "everywhere" if name == "world" else f"in {name}"
    if kind == "viewer":
        return "a viewer"
    row = snapshot.row(name) if kind == "video" else None
    return called(row) if row is not None else name or kind


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _unknown_viewer(row: VideoRow, freshness: float, now: float) -> list[Reason]:
    return [
        {
            "kind": "new_viewer",
            "text": "Your taste is not known yet, so here are fresh videos that differ from each other.",
            "effect": 0.0,
        },
        {
            "kind": "fresh",
            "text": f"Published {_ago(max(now - row.published_at, 0.0))}.",
            "published_at": row.published_at,
            "effect": freshness,
        },
    ]


def _ago(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _unexplored(row: VideoRow) -> Reason:
    return {
        "kind": "unexplored",
        "text": f"{called(row)} is not like what you watch; nothing nearer is left.",
        "effect": 0.0,
    }
