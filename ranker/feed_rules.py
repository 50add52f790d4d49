"""Rules on the list as a whole: caps within a window, an entropy floor against the information cocoon, and safety.

Caps: among any `window` videos in a row at most so many of one creator, one sound and one topic (the heaviest tag); a
video that would be one too many waits for the next place that has room. Nothing known (no creator, no tags) is never
capped. When every video left would break a cap, the best of those that break the fewest is taken: a feed never ends
early because of a rule.

Entropy: in each stretch of `window` places the topics' Shannon entropy, in bits, is at least `least_bits`, as far as
the catalogue allows: while it is not, the last video of the commonest topic makes room for the best of the waiting ones
whose topic raises the entropy, at the end of the stretch. (An entropy bound on exposure: Celis et al. 2018, "Ranking
with fairness constraints", states such bounds as counts per group; a floor on entropy needs no list of groups.)

Exploration: with each stretch of `window` places come `explored` more of the videos that look for their audience, the
best by the draw of the source `fresh` first, but none that the viewer has refused: among a million videos that are
known to suit somebody, a new one would never be shown by its score alone. It comes at the end of the stretch, unless
its score brings it before that.

A rule that moves a video down is seen in its `rules` term, and in `rules` of its Recommendation, in words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ranker.row_facts import RowFacts, facts_of
from ranker.section import Section
from ranker.video_table import Snapshot

Key = Hashable | None

# Nobody scrolls so far in one request: beyond this place videos follow by score alone.
MOST_RULED = 1000
# So many of the waiting are looked at for one that breaks no cap.
LOOK_AHEAD = 300


class FeedRules(Section):
    """Caps and floors of one feed."""

    window: int = Field(10, ge=1, le=100, description="Places in a row on which caps and the entropy floor look.")
    creator: int = Field(4, ge=1, description="Most videos of one creator within the window.")
    sound: int = Field(3, ge=1, description="Most videos with one sound within the window, where sounds are known.")
    topic: int = Field(8, ge=1, description="Most videos of one topic within the window.")
    least_bits: float = Field(
        0.4, ge=0, allow_inf_nan=False, description="Least entropy of the topics of the window, in bits."
    )

    explored: int = Field(1, ge=0, description="Videos of each window that look for their audience.")

    def caps(self) -> dict[str, int]:
        """The caps by the names of their keys."""
        return {"creator": self.creator, "sound": self.sound, "topic": self.topic}


class Safety(Section):
    """What is never shown in a feed. There is no classifier behind it: it filters by what videos say of themselves."""

    hidden_tags: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Tags whose videos are in no feed."
    )
    hidden_creators: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Creators whose videos are in no feed."
    )


@dataclass(frozen=True)
class Arranged:
    """The order of places, and for each place what moved it: `capped` the keys whose caps it waited for, `lifted` the
    places brought forward for entropy, `tried` those for exploration, `made_room` those that went for them."""

    order: list[int]
    capped: dict[int, set[str]] = field(default_factory=dict)
    lifted: set[int] = field(default_factory=set)
    tried: set[int] = field(default_factory=set)
    made_room: set[int] = field(default_factory=set)


def arrange(
    order: Sequence[int],
    keys: Mapping[str, Sequence[Key]],
    rules: FeedRules,
    count: int,
    trials: Sequence[int] = (),
) -> Arranged:
    """`order` (best first) rearranged by the rules, `count` places long or as long as there are videos.

    `keys[name][place]` is a place's creator, sound or topic, None where not known; `topic` also counts for entropy.
    `trials` are the places that look for their audience, the best to try first. The beginning of the list does not
    depend on `count`.
    """
    waiting = list(order)
    placed: list[int] = []
    arranged = Arranged(placed)
    caps = {name: cap for name, cap in rules.caps().items() if name in keys and cap < rules.window}
    topics = keys.get("topic", ())
    # Whole windows, so that a shorter feed is the beginning of a longer one.
    aim = min(math.ceil(count / rules.window) * rules.window, MOST_RULED)
    while waiting and len(placed) < aim:
        _place_one(waiting, placed, keys, caps, rules.window, arranged)
        if len(placed) % rules.window == 0 or not waiting:
            start = (len(placed) - 1) // rules.window * rules.window
            _explore(waiting, placed, start, trials, rules.explored, arranged)
            _raise_entropy(waiting, placed, start, topics, rules.least_bits, arranged)
    placed.extend(waiting[: max(count - len(placed), 0)])
    del placed[count:]
    return arranged


def _place_one(
    waiting: list[int],
    placed: list[int],
    keys: Mapping[str, Sequence[Key]],
    caps: Mapping[str, int],
    window: int,
    arranged: Arranged,
) -> None:
    recent = placed[max(len(placed) - window + 1, 0) :]
    full = {
        name: {
            key
            for key, count in Counter(keys[name][place] for place in recent).items()
            if key is not None and count >= cap
        }
        for name, cap in caps.items()
    }
    best, fewest = 0, len(caps) + 1
    passed: list[tuple[int, set[str]]] = []
    for index, place in enumerate(waiting[:LOOK_AHEAD]):
        broken = {name for name, keys_full in full.items() if keys[name][place] in keys_full}
        if len(broken) < fewest:
            best, fewest = index, len(broken)
        if not broken:
            break
        passed.append((place, broken))
    # Those before the chosen one break more than it does, and wait.
    for place, broken in passed[:best]:
        arranged.capped.setdefault(place, set()).update(broken)
    placed.append(waiting.pop(best))


def _explore(
    waiting: list[int], placed: list[int], start: int, trials: Sequence[int], least: int, arranged: Arranged
) -> None:
    # The n-th stretch has the n-th best, unless its score brought it into the feed before.
    windows = start // max(len(placed) - start, 1) + 1
    there = set(placed)
    for comes in [place for place in trials[: windows * least] if place not in there]:
        leaves = next((place for place in reversed(placed[start:]) if place not in arranged.tried), None)
        if leaves is None:
            return
        placed.remove(leaves)
        waiting.remove(comes)
        placed.append(comes)
        waiting.insert(0, leaves)
        arranged.tried.add(comes)
        arranged.made_room.add(leaves)


def _raise_entropy(
    waiting: list[int], placed: list[int], start: int, topics: Sequence[Key], least: float, arranged: Arranged
) -> None:
    while topics:
        counts = Counter(topics[place] for place in placed[start:])
        if entropy(list(counts.values())) >= least:
            return
        # The commonest topic; among equals that of the last video.
        common = max(counts.values())
        held = arranged.tried
        leaves = next(
            (place for place in reversed(placed[start:]) if counts[topics[place]] == common and place not in held), None
        )
        comes = next((place for place in waiting if counts[topics[place]] + 1 < common), None)
        if leaves is None or comes is None:
            return
        placed.remove(leaves)
        waiting.remove(comes)
        placed.append(comes)
        waiting.insert(0, leaves)
        arranged.lifted.add(comes)
        arranged.made_room.add(leaves)


def entropy(counts: Sequence[int]) -> float:
    """Shannon entropy of the shares of these counts, in bits."""
    total = sum(counts)
    return sum(-count / total * math.log2(count / total) for count in counts if count)


def topic_keys(facts: RowFacts, rows: npt.NDArray[np.int64]) -> list[Key]:
    """The topic of each row, None without tags."""
    return [topic if topic >= 0 else None for topic in facts.topics[rows].tolist()]


def hidden_rows(snapshot: Snapshot, rows: npt.NDArray[np.int64], safety: Safety) -> npt.NDArray[np.bool_]:
    """Which of the rows safety hides."""
    hidden = np.zeros(len(rows), np.bool_)
    if safety.hidden_creators:
        numbers = [snapshot.creator_numbers.get(name, -1) for name in safety.hidden_creators]
        hidden |= np.isin(snapshot.creators[rows], numbers)
    if safety.hidden_tags:
        facts = facts_of(snapshot)
        owners, places = facts.places(rows)
        tags = [facts.tag_numbers.get(tag, -1) for tag in safety.hidden_tags]
        hidden |= np.bincount(owners, np.isin(facts.tags[places], tags), len(rows)) > 0
    return hidden
