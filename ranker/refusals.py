"""What a viewer refused, and how near other videos are to it: by topic, creator, look, sound and words.

`not_interested` and `report` are meant for more than the one video. Every refused video takes its neighbourhood down at
once, by `strength * kinship`, and the largest of these counts for a video:

    strength = min(1, negative mass / 2) ^ (60 days / half-life)     negative mass: `ranker.profiles.Contribution`
    kinship  = max over kinds of  weight of the kind * likeness of that kind, each 0..1

A `not_interested` has the mass 2 and so the strength 1, which halves every `refusal_half_life_seconds`; a `skip` has
the mass 0.5, which is too little to count (0.06). Likeness by topic is the cosine of the tags, each times its rarity.
By creator it is 1 or 0. By look, sound and words it is a cosine above `refusal_floor`, drawn out to 0..1: that of the
two fused vectors, and for each modality by itself that of the refused video's part of it (its tokens times their
weights) with the candidate's part. The candidate's part need not be read from storage: parts of different modalities
are nearly orthogonal (`fusion.projection`), so it is the fused vector's component along the refused part, over the
length that the candidate's attention gives that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ranker.events import ACT_VALUES
from ranker.modality_parts import modality_sums
from ranker.profiles import NEGATIVE_HALF_LIFE_SECONDS, Profile, fading
from ranker.row_facts import RowFacts, facts_of
from ranker.video_table import PublishedVideo, Snapshot, VideoTable
from store.records import MODALITIES

if TYPE_CHECKING:
    from ranker.scoring import RankerConfig

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

# The strongest so many refusals count, each with at least this strength: more than one skip has.
MOST_REFUSED = 16
LEAST_STRENGTH = 0.07
# A modality with less than this share of the attention (at unit length) cannot make a video alike.
LEAST_ATTENTION = 0.15
CHUNK = 65_536
KINDS: tuple[str, ...] = ("topic", "creator", "whole", "vision", "audio", "text")


@dataclass(frozen=True, eq=False)
class Refused:
    """The refused videos, strongest first. `rows` int64 [r] places in the snapshot; `strengths` float64 [r] in 0..1;
    `parts` float64 [3, r, dim]: unit part of each modality, zeros where it has none or its artifact is not at hand."""

    rows: Int64
    strengths: Float64
    parts: Float64

    def __len__(self) -> int:
        return len(self.rows)


def refused_of(
    profile: Profile, snapshot: Snapshot, now: float, config: RankerConfig, table: VideoTable | None = None
) -> Refused:
    """What the viewer refused, as strong as it is at the time `now`. With `table`, looks, sounds and words count by
    themselves (it reads the refused videos' artifacts); without, only the fused vectors do."""
    left = fading(max(now - profile.as_of, 0.0), NEGATIVE_HALF_LIFE_SECONDS) / -ACT_VALUES["not_interested"]
    power = NEGATIVE_HALF_LIFE_SECONDS / config.refusal_half_life_seconds
    strengths = {
        name: min(part.negative * left, 1.0) ** power
        for name, part in profile.contributions.items()
        if part.negative > 0 and name in snapshot.row_of
    }
    names = [name for name, strength in strengths.items() if strength >= LEAST_STRENGTH]
    names = sorted(names, key=lambda name: (-strengths[name], name))[:MOST_REFUSED]
    parts = np.zeros((len(MODALITIES), len(names), snapshot.vectors.shape[1]))
    for place, name in enumerate(names if table is not None else []):
        video = table.find(name) if table is not None else None
        if video is not None and video.vector.shape == parts.shape[2:]:
            parts[:, place] = parts_of(video)
    return Refused(
        np.array([snapshot.row_of[name] for name in names], np.int64),
        np.array([strengths[name] for name in names], np.float64),
        parts,
    )


def parts_of(video: PublishedVideo) -> Float64:
    """float64 [3, dim]: the unit direction of each modality's part of the video's vector, or zeros."""
    sums = modality_sums(video)[1]
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return sums / np.where(norms > 0, norms, 1.0)


def nearness(
    refused: Refused, snapshot: Snapshot, rows: Int64 | None, config: RankerConfig, exact: bool = True
) -> Float64:
    """float64 [n] in 0..1: strength times kinship of the refusal that is nearest to each row (all rows: None).

    Without `exact`, and for all rows, vectors are multiplied in float32."""
    count = len(snapshot) if rows is None else len(rows)
    found = np.zeros(count)
    if not len(refused):
        return found
    facts = facts_of(snapshot)
    for start in range(0, count, CHUNK):
        some = np.arange(start, min(start + CHUNK, count)) if rows is None else rows[start : start + CHUNK]
        kinship = kinships(refused, snapshot, some, config, facts, exact and rows is not None).max(axis=0)
        found[start : start + CHUNK] = (kinship * refused.strengths).max(axis=1)
    return found


def kinships(
    refused: Refused, snapshot: Snapshot, rows: Int64, config: RankerConfig, facts: RowFacts, exact: bool = True
) -> Float64:
    """float64 [6, n, r]: likeness by each of `KINDS` times its weight, for each row and refused video."""
    found = np.zeros((len(KINDS), len(rows), len(refused)))
    found[0] = config.refusal_topic * _topics(refused, rows, facts)
    creators = snapshot.creators[refused.rows]
    named = np.array([bool(snapshot.rows[place].creator) for place in refused.rows])
    found[1] = config.refusal_creator * ((snapshot.creators[rows][:, None] == creators) & named)
    weights = (config.refusal_look, config.refusal_look, config.refusal_sound, config.refusal_words)
    # Of 55 pairs of unlike real clips, one in twenty is above .17 by looks, .69 by sound and .60 by words.
    floors = (config.refusal_floor, config.refusal_floor, config.refusal_floor_sound, config.refusal_floor_words)
    kinds = np.concatenate([snapshot.vectors[refused.rows].astype(np.float64)[None], refused.parts])
    used = [place for place in range(len(kinds)) if weights[place] and kinds[place].any()]
    directions = kinds[used].reshape(-1, kinds.shape[2])
    if exact:
        # One product for each row: a product of whole matrices may round a row differently beside other rows.
        products = np.matmul(snapshot.vectors[rows].astype(np.float64)[:, None, :], directions.T)[:, 0, :]
    else:
        products = (snapshot.vectors[rows] @ directions.T.astype(np.float32)).astype(np.float64)
    for number, place in enumerate(used):
        cosines = products[:, number * len(refused) : (number + 1) * len(refused)]
        if place:
            attention = facts.attention[rows, place - 1][:, None]
            cosines = np.where(attention >= LEAST_ATTENTION, cosines / np.maximum(attention, LEAST_ATTENTION), 0.0)
        floor = floors[place]
        drawn = (np.minimum(cosines, 1.0) - floor) / (1.0 - floor)
        found[2 + place] = weights[place] * np.maximum(drawn, 0.0)
    return found


def _topics(refused: Refused, rows: Int64, facts: RowFacts) -> Float64:
    """float64 [n, r]: cosines of the tags, each weight times the tag's rarity."""
    owners, places = facts.places(rows)
    tags = facts.tags[places]
    weights = facts.weights[places] * facts.rarity[tags]
    lengths = np.sqrt(np.bincount(owners, weights**2, len(rows)))
    found = np.zeros((len(rows), len(refused)))
    for place, row in enumerate(refused.rows):
        span = slice(facts.starts[row], facts.starts[row + 1])
        own = facts.weights[span] * facts.rarity[facts.tags[span]]
        asked = np.zeros(len(facts.rarity))
        asked[facts.tags[span]] = own
        scale = lengths * np.linalg.norm(own)
        sums = np.bincount(owners, asked[tags] * weights, len(rows))
        found[:, place] = np.divide(sums, scale, out=np.zeros(len(rows)), where=scale > 0)
    return found


def kind_names(kinds: Sequence[int]) -> list[str]:
    """The names of kinds in words: `whole` and `vision` are both the look."""
    spoken = ("topic", "creator", "look", "look", "sound", "words")
    return list(dict.fromkeys(spoken[kind] for kind in kinds))
