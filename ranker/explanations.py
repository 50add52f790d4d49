"""Why a video is recommended: reasons that name only what raised its score, as data and as a sentence.

Each reason is a dict with `kind`, `text` (the sentence), and `effect`: how much of the score it accounts for.

watched_video     the watched video that this one resembles most, of those without which its score would be lower;
                  `effect` is how much lower, from scoring it again for the same viewer without that video
moment            the modality and second that make the two alike (part of the same effect; it has none of its own)
tags              tags shared with what was watched, each with what it adds to the `tags` term
followed_creator  the viewer follows its creator
fresh, new_viewer why it is shown to a viewer of whom nothing is known
unexplored        none of the above: the best of what is left
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ranker import tag_index
from ranker.profiles import Profile, watched_of, without
from ranker.scoring import RankerConfig, Rows, confidences, score_terms
from ranker.video_table import PublishedVideo, Snapshot, VideoRow, VideoTable
from store.records import MODALITIES, AttendedToken, Modality

Float64 = npt.NDArray[np.float64]
Reason = dict[str, Any]

# A watched video is named when the score would be at least this much lower without it.
MATTERS = 1e-3
NAMED_TAGS = 3
NEAREST_TRIED = 3
HEAVIEST_TRIED = 2
MOST_MOMENTS = 100
WHOLE_VIDEO_SOURCES = frozenset({"title", "description", "tags"})
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
) -> list[list[Reason]]:
    """The reasons of each of `rows`, strongest first; every row has at least one. `terms` are the rows' own."""
    known = profile.long_mass > 0
    anchors = _anchors(profile, snapshot, rows, now, config) if known else [None] * len(rows)
    long, _, _ = confidences(profile, now, config)
    tags_length = tag_index.length(profile.tags)
    result = []
    for place, row_number in enumerate(rows):
        row = snapshot.rows[row_number]
        reasons: list[Reason] = []
        if (anchor := anchors[place]) is not None:
            reasons.append(anchor)
            if place < MOST_MOMENTS:
                reasons.extend(_moment(table, row, snapshot.rows[snapshot.row_of[anchor["video"]]]))
        shares = tag_index.shares(profile.tags, tags_length, row.tags, snapshot.tags)
        reasons.extend(_tags(shares, config.tags * long))
        if (followed := float(terms["followed_creator"][place])) > 0:
            text = f"By {row.creator}, whom you follow."
            reasons.append({"kind": "followed_creator", "text": text, "creator": row.creator, "effect": followed})
        if not known:
            reasons.extend(_unknown_viewer(row, float(terms["freshness"][place]), now))
        result.append(reasons or [_unexplored(row)])
    return result


def _anchors(profile: Profile, snapshot: Snapshot, rows: Rows, now: float, config: RankerConfig) -> list[Reason | None]:
    """For each row the `watched_video` reason, where there is one."""
    names = sorted(name for name, part in profile.contributions.items() if part.long > 0 and name in snapshot.row_of)
    if not names:
        return [None] * len(rows)
    places = np.array([snapshot.row_of[name] for name in names])
    heaviness = np.array([profile.contributions[name].long + profile.contributions[name].recent for name in names])
    # Not a matrix product: that may round a row differently beside other rows, and a reason must not change with k.
    alike = np.einsum(
        "nd,md->nm", snapshot.vectors[rows].astype(np.float64), snapshot.vectors[places].astype(np.float64)
    )
    tried = [_candidates(alike[place], heaviness) for place in range(len(rows))]
    full = _totals(profile, snapshot, rows, now, config)
    effects = np.full((len(rows), len(names)), -np.inf)
    for index in sorted({index for indices in tried for index in indices}):
        video = watched_of(snapshot, names[index])
        if video is not None:
            touched = np.array([place for place, indices in enumerate(tried) if index in indices])
            reduced = without(profile, names[index], video)
            effects[touched, index] = full[touched] - _totals(reduced, snapshot, rows[touched], now, config)
    found: list[Reason | None] = []
    for place, indices in enumerate(tried):
        mattering = [index for index in indices if effects[place, index] >= MATTERS]
        if not mattering:
            found.append(None)
            continue
        best = max(mattering, key=lambda index: (alike[place, index], names[index]))
        found.append(
            _watched_video(profile, snapshot.rows[places[best]], float(alike[place, best]), float(effects[place, best]))
        )
    return found


def _candidates(alike: Float64, heaviness: Float64) -> list[int]:
    """The nearest watched videos, and those that add most: few enough to score the row again without each."""
    nearest = np.argsort(-alike, kind="stable")[:NEAREST_TRIED]
    heaviest = np.argsort(-alike * heaviness, kind="stable")[:HEAVIEST_TRIED]
    return sorted({int(index) for index in (*nearest, *heaviest)})


def _totals(profile: Profile, snapshot: Snapshot, rows: Rows, now: float, config: RankerConfig) -> Float64:
    total: Float64 = np.sum(list(score_terms(profile, snapshot, rows, now, config).values()), axis=0)
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


def called(row: VideoRow) -> str:
    """What to call a video in a sentence: its title in quotes, else the beginning of its id."""
    return f"“{row.title}”" if row.title else f"video {row.id[:12]}"


def contributions(video: PublishedVideo, other: PublishedVideo) -> Float64:
    """float64 [n_tokens]: what each token of `video` adds to the cosine of the two vectors, through the tokens of the
    same modality in `other`.

    A vector is the weighted sum of its token vectors at unit length, so the cosine is the sum of these and of products
    across modalities. The latter are near 0 (`fusion.projection`) and mean nothing: no token is credited with them.
    """
    mine, theirs = _weighted(video), _weighted(other)
    added = np.zeros(len(mine))
    for modality in MODALITIES:
        inside = [token.modality == modality for token in video.attributes.tokens]
        across = [token.modality == modality for token in other.attributes.tokens]
        added[inside] = mine[inside] @ theirs[across].sum(axis=0)
    scale = np.linalg.norm(mine.sum(axis=0)) * np.linalg.norm(theirs.sum(axis=0))
    return added / scale


def _weighted(video: PublishedVideo) -> Float64:
    weighted: Float64 = video.weights.astype(np.float64)[:, None] * video.token_vectors.astype(np.float64)
    return weighted


def by_modality(video: PublishedVideo, added: Float64) -> dict[Modality, float]:
    """The sums of token contributions over each modality that the video has."""
    sums: dict[Modality, float] = {}
    for modality in MODALITIES:
        inside = [token.modality == modality for token in video.attributes.tokens]
        if any(inside):
            sums[modality] = float(added[inside].sum())
    return sums


def _moment(table: VideoTable, row: VideoRow, anchor: VideoRow) -> list[Reason]:
    """The token that does most for the modality that does most, and its counterpart in the watched video."""
    video, other = table.find(row.id), table.find(anchor.id)
    if video is None or other is None:
        return []
    added = contributions(video, other)
    modality, share = max(by_modality(video, added).items(), key=lambda item: item[1])
    if share <= 0:
        return []
    mine = _of(video, modality)
    best = max(mine, key=lambda index: (added[index], -index))
    theirs = _of(other, modality)
    token = video.attributes.tokens[best]
    reason: Reason = {
        "kind": "moment",
        "text": f"{_spoken(token)} {_verb(modality)}",
        "modality": modality,
        "source": token.source,
        "start": token.start,
        "end": token.end,
        "share": share,
        "video": anchor.id,
    }
    counterpart = None
    if theirs:
        near = other.weights[theirs].astype(np.float64) * (other.token_vectors[theirs] @ video.token_vectors[best])
        counterpart = other.attributes.tokens[theirs[int(np.argmax(near))]]
        reason["there"] = {"source": counterpart.source, "start": counterpart.start, "end": counterpart.end}
    reason["text"] = f"{_spoken(token)} {_verb(modality)} {_there(counterpart, anchor)}."
    return [reason]


def _of(video: PublishedVideo, modality: Modality) -> list[int]:
    tokens = video.attributes.tokens
    return [index for index, token in enumerate(tokens) if token.modality == modality and video.weights[index] > 0]


def _spoken(token: AttendedToken) -> str:
    if token.source in WHOLE_VIDEO_SOURCES:
        return f"Its {token.source} {'are' if token.source == 'tags' else 'is'}"
    what = {"vision": "picture", "audio": "sound", "text": token.source}[token.modality]
    return f"The {what} at {clock(token.start)} is"


def _verb(modality: Modality) -> str:
    return {"vision": "like", "audio": "like", "text": "close in meaning to"}[modality]


def _there(token: AttendedToken | None, anchor: VideoRow) -> str:
    if token is None:
        return called(anchor)
    if token.source in WHOLE_VIDEO_SOURCES:
        return f"the {token.source} of {called(anchor)}"
    return f"{clock(token.start)} of {called(anchor)}"


def clock(seconds: float) -> str:
    """Minutes and seconds, as players show them."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _tags(shares: Mapping[str, float], weight: float) -> list[Reason]:
    named = {tag: weight * share for tag, share in shares.items() if weight * share >= MATTERS}
    named = dict(list(named.items())[:NAMED_TAGS])
    if not named:
        return []
    text = f"You watch videos about {_listed(list(named))}."
    return [{"kind": "tags", "text": text, "tags": named, "effect": sum(named.values())}]


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
