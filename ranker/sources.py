"""The sources of recall: each finds some hundreds of videos for a viewer in its own way, and says along which path.

interest         nearest to each of the viewer's interests, each by its share of the quota
co_watch         what the same people liked as what the viewer watched
graph            random walks from what the viewer watched, over viewers, creators and topics
similar_viewers  what people of the same taste liked
followed         the newest of the creators whom the viewer follows
trending         what is watched now: in the world, in the region, by speakers of the language
fresh            new and little-shown videos, tried on whom they may suit (`ranker.exploration`)
model            what the trained ranker that is served scores highest (`ranker.champion`)

What a source knows of others comes from the `Audience`; whom it is for is always the live profile of the request.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ranker.audience import Audience, Crowd
from ranker.candidates import Candidates, Paths, Request, Rows, Source
from ranker.champion import Champion, ModelSource
from ranker.exploration import audiences, fits, posterior, prior_means, stream_of
from ranker.found import QUOTAS
from ranker.grouping import together
from ranker.profiles import Profile
from ranker.video_table import Snapshot

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# What is asked for besides the quota, as some of it was seen already or is gone.
SPARE = 64
# Rows that exploration looks at together.
BLOCK = 4096
EMPTY = np.zeros(0, np.int64), np.zeros(0)
SEEDS = 50
# Each later video takes e^-(1/10) off an earlier one: measured on what people watched next (docs/recall.md).
RECENT_RANKS = 10.0


@dataclass(frozen=True, eq=False)
class Wanted:
    """One interest as recall uses it: `vector` float64 [dim] unit, its mass, and the videos it comes from."""

    vector: Float64
    mass: float
    videos: tuple[str, ...] = ()


def sources(audience: Audience, champion: Champion | None = None) -> list[Source]:
    """All sources, in the order of `QUOTAS`; without a champion `model` finds nothing."""
    return [
        Interest(),
        CoWatch(audience),
        Graph(audience),
        SimilarTaste(audience),
        Followed(),
        TrendingNow(audience),
        Fresh(audience),
        ModelSource(champion),
    ]


def with_quotas(found: Sequence[Source], quotas: dict[str, int] | None = None) -> list[tuple[Source, int]]:
    """Each source with its quota; one that is not named gets none."""
    shares = QUOTAS if quotas is None else quotas
    return [(source, shares.get(source.name, 0)) for source in found]


def interests_of(profile: Profile) -> list[Wanted]:
    """The viewer's interests, heaviest first; long-term and recent interest where the profile has no others."""
    several = getattr(profile, "interests", ())
    if several:
        return [Wanted(one.vector, one.mass, tuple(one.videos)) for one in several]
    found = []
    for total, mass in ((profile.long, profile.long_mass), (profile.recent, profile.recent_mass)):
        norm = float(np.linalg.norm(total))
        if norm > 0 and mass > 0:
            found.append(Wanted(total / norm, mass))
    return found


def seeds_of(profile: Profile) -> dict[str, float]:
    """What the viewer watched and liked, by weight above 0, the heaviest `SEEDS`: what it says for itself, less by
    exp(-rank / `RECENT_RANKS`) where rank counts what was watched later."""
    # Both fade from the same value, one quickly and one slowly: their ratio tells how long ago it was.
    known = {
        name: (part.long - part.negative, part.recent / part.long)
        for name, part in profile.contributions.items()
        if part.long > part.negative
    }
    ages = sorted(ratio for _, ratio in known.values())
    weights = {
        name: worth * math.exp(-(len(ages) - bisect.bisect_right(ages, ratio)) / RECENT_RANKS)
        for name, (worth, ratio) in known.items()
    }
    order = sorted((-weight, name) for name, weight in weights.items())[:SEEDS]
    return {name: -weight for weight, name in order}


class Interest:
    """Nearest to each interest. The quota is shared by mass, each getting at least one; a video that several interests
    find counts for the nearest of them."""

    name = "interest"

    def find(self, request: Request, quota: int) -> Candidates:
        width = request.snapshot.vectors.shape[1] if len(request.snapshot) else 0
        wanted = [one for one in interests_of(request.profile) if len(one.vector) == width][:quota]
        if not wanted:
            return _nothing(self.name)
        queries = np.stack([one.vector for one in wanted]).astype(np.float32)
        rows, cosines = request.snapshot.index.search(queries, quota, request.unseen)
        best: dict[int, tuple[float, int]] = {}
        for number, share in enumerate(shares([one.mass for one in wanted], quota)):
            # The next ones step in for what a heavier interest has found already.
            left = share
            for row, cosine in zip(rows[number].tolist(), cosines[number].tolist(), strict=True):
                if row < 0 or left == 0:
                    break
                left -= row not in best
                if row not in best or best[row][0] < cosine:
                    best[row] = cosine, number

        def path(row: int) -> tuple[str, ...]:
            return _path(wanted[best[row][1]].videos[:1], "interest", request.snapshot.ids[row])

        return _ordered(self.name, request, {row: cosine for row, (cosine, _) in best.items()}, quota, path)


def shares(masses: Sequence[float], quota: int) -> list[int]:
    """How many of `quota` places each mass gets: in proportion, at least one (there are no more masses than places);
    what rounding leaves goes to the largest remainders."""
    free = quota - len(masses)
    total = sum(masses)
    exact = [free * mass / total for mass in masses]
    given = [int(part) for part in exact]
    order = sorted(range(len(masses)), key=lambda place: (given[place] - exact[place], place))
    for place in order[: free - sum(given)]:
        given[place] += 1
    return [1 + part for part in given]


@dataclass(frozen=True, eq=False)
class CoWatch:
    """Neighbours of what was watched (`ranker.item_item`)."""

    audience: Audience
    name: str = "co_watch"

    def find(self, request: Request, quota: int) -> Candidates:
        crowd = self.audience.crowd
        if crowd is None:
            return _nothing(self.name)
        seeds = _seeds(crowd, request.profile)
        if not seeds:
            return _nothing(self.name)
        near, places = crowd.neighbours, np.array(sorted(seeds), np.int64)
        beside = near[places]
        weighed = beside.data * np.repeat([seeds[place] for place in places.tolist()], np.diff(beside.indptr))
        watched = np.repeat(places, np.diff(beside.indptr))
        columns, totals, _, first = together(
            beside.indices.astype(np.int64), weighed.astype(np.float64), weighed.astype(np.float64)
        )
        best = np.argsort(-totals, kind="stable")
        rows: dict[int, float] = {}
        through: dict[int, str] = {}
        last = 0.0
        for place in best.tolist():
            name = crowd.names[columns[place]]
            row = request.snapshot.row_of.get(name)
            if row is None or not request.unseen[row]:
                continue
            # One that ties with the last is still to be ordered by id.
            if len(rows) >= quota and totals[place] < last:
                break
            rows[row] = last = float(totals[place])
            through[row] = crowd.names[watched[first[place]]]

        def path(row: int) -> tuple[str, ...]:
            return _path([through[row]], "together", request.snapshot.ids[row])

        return _ordered(self.name, request, rows, quota, path)


@dataclass(frozen=True, eq=False)
class Graph:
    """Random walks from what was watched (`ranker.walks`)."""

    audience: Audience
    name: str = "graph"

    def find(self, request: Request, quota: int) -> Candidates:
        crowd = self.audience.crowd
        if crowd is None:
            return _nothing(self.name)
        seeds = _seeds(crowd, request.profile)
        # What was seen but is no seed would take up places: as much more is asked for.
        found = crowd.walks.walk(seeds, quota + len(request.profile.seen) + SPARE)
        called = {edges.kind: edges.names for edges in crowd.walks.edges}
        rows: dict[int, float] = {}
        columns: dict[int, int] = {}
        for column, score in zip(found.videos.tolist(), found.scores.tolist(), strict=True):
            row = request.snapshot.row_of.get(crowd.names[column])
            if row is None or not request.unseen[row]:
                continue
            rows[row], columns[row] = score, column
            if len(rows) == quota:
                break

        def path(row: int) -> tuple[str, ...]:
            return tuple(
                f"video:{crowd.names[number]}"
                if kind == "video"
                else (f"{kind}:{called[kind][number]}" if called[kind] else kind)
                for kind, number in found.path(columns[row])
            )

        return _ordered(self.name, request, rows, quota, path)


@dataclass(frozen=True, eq=False)
class SimilarTaste:
    """What the nearest other viewers liked (`ranker.similar_viewers`)."""

    audience: Audience
    name: str = "similar_viewers"

    def find(self, request: Request, quota: int) -> Candidates:
        crowd = self.audience.crowd
        seeds = {} if crowd is None else _seeds(crowd, request.profile)
        if crowd is None or not seeds:
            return _nothing(self.name)
        columns, scores = crowd.viewers.found(seeds)
        rows = {}
        for column, score in zip(columns.tolist(), scores.tolist(), strict=True):
            row = request.snapshot.row_of.get(crowd.names[column])
            if row is not None and request.unseen[row]:
                rows[row] = score
        return _ordered(self.name, request, rows, quota, lambda row: ("viewer", f"video:{request.snapshot.ids[row]}"))


class Followed:
    """The newest videos of followed creators."""

    name = "followed"

    def find(self, request: Request, quota: int) -> Candidates:
        snapshot = request.snapshot
        numbers = [
            snapshot.creator_numbers[name] for name in request.profile.creators & snapshot.creator_numbers.keys()
        ]
        if not numbers:
            return _nothing(self.name)
        rows = np.flatnonzero(np.isin(snapshot.creators, numbers) & request.unseen)
        found = {int(row): float(snapshot.published_at[row]) for row in rows}

        def path(row: int) -> tuple[str, ...]:
            return f"creator:{snapshot.rows[row].creator}", f"video:{snapshot.ids[row]}"

        return _ordered(self.name, request, found, quota, path)


@dataclass(frozen=True, eq=False)
class TrendingNow:
    """What is watched now (`ranker.trending`)."""

    audience: Audience
    name: str = "trending"

    def find(self, request: Request, quota: int) -> Candidates:
        rows: dict[int, float] = {}
        places: dict[int, str] = {}
        for video, score, place in self.audience.trending.leading(request.now, request.region, request.language):
            row = request.snapshot.row_of.get(video)
            if row is not None and request.unseen[row]:
                rows[row], places[row] = score, place
                if len(rows) == quota:
                    break

        def path(row: int) -> tuple[str, ...]:
            return f"trending:{places[row]}", f"video:{request.snapshot.ids[row]}"

        return _ordered(self.name, request, rows, quota, path)


@dataclass(frozen=True, eq=False)
class Fresh:
    """New and little-shown videos by Thompson sampling (`ranker.exploration`)."""

    audience: Audience
    name: str = "fresh"

    def find(self, request: Request, quota: int) -> Candidates:
        config, snapshot = self.audience.config.exploration, request.snapshot
        crowd, tallies = self.audience.crowd, self.audience.tallies
        found: list[tuple[Rows, Float64]] = []
        for block, priors in _explorable(crowd, snapshot):
            allowed = request.unseen[block]
            block, priors = block[allowed], priors[allowed]
            shown, liked = tallies.of([snapshot.ids[row] for row in block.tolist()])
            young = request.now - snapshot.published_at[block] < config.fresh_seconds
            chosen = (young | (shown < config.enough)) & (liked < config.found)
            found.append((block[chosen], priors[chosen]))
            if sum(len(rows) for rows, _ in found) >= config.pool:
                break
        rows, prior = (np.concatenate(parts)[: config.pool] for parts in zip(*found, strict=True)) if found else EMPTY
        if not len(rows):
            return _nothing(self.name)
        names = [snapshot.ids[row] for row in rows.tolist()]
        vectors = snapshot.vectors[rows]
        shown, liked = tallies.of(names)
        unknown = np.flatnonzero(np.isnan(prior))
        known = crowd.known if crowd is not None and crowd.known is not None else (vectors[:0], shown[:0], liked[:0])
        if known[0].shape[1] != vectors.shape[1]:
            # Of another version of the vectors, until the next rebuild.
            known = vectors[:0], shown[:0], liked[:0]
        prior[unknown] = prior_means(vectors[unknown], *known, config)
        theta = posterior(shown, liked, prior, config).draw(stream_of(request.viewer, request.now))
        drawn = {
            place: crowd.drawn[name]
            for place, name in enumerate(names)
            if crowd is not None and name in crowd.drawn and len(crowd.drawn[name]) == vectors.shape[1]
        }
        wanted = [one for one in interests_of(request.profile) if len(one.vector) == vectors.shape[1]]
        if wanted:
            fit = fits(
                np.stack([one.vector for one in wanted]),
                np.array([one.mass for one in wanted]),
                audiences(vectors, drawn, config),
                config,
            )
        else:
            fit = np.ones(len(rows))
        scores = theta * fit
        first = (request.now - snapshot.published_at[rows] < config.first_seconds) & (shown < config.first_shown)
        scores[first] += scores.max()
        best = dict(zip(rows.tolist(), scores.tolist(), strict=True))
        return _ordered(self.name, request, best, quota, lambda row: ("fresh", f"video:{snapshot.ids[row]}"))


def _explorable(crowd: Crowd | None, snapshot: Snapshot) -> Iterator[tuple[Rows, Float64]]:
    """Rows that exploration may try, newest first, in blocks: those published since the crowd was made, and those it
    named; with what resembling videos did (nan: not known)."""
    known = crowd is not None and crowd.table[0] is snapshot.rows
    first = crowd.table[1] if crowd is not None and known else 0
    for last in range(len(snapshot), first, -BLOCK):
        block = np.arange(last - 1, max(first, last - BLOCK) - 1, -1)
        yield block, np.full(len(block), np.nan)
    if crowd is not None and known:
        yield crowd.pool, crowd.pool_priors


def _seeds(crowd: Crowd, profile: Profile) -> dict[int, float]:
    """The seeds that the crowd knows, by column."""
    columns = crowd.interactions.videos
    return {columns[name]: weight for name, weight in seeds_of(profile).items() if name in columns}


def _path(watched: Sequence[str], through: str, video: str) -> tuple[str, ...]:
    return (*(f"video:{name}" for name in watched), through, f"video:{video}")


def _nothing(name: str) -> Candidates:
    return Candidates(name, np.zeros(0, np.int64), np.zeros(0))


def _ordered(
    name: str, request: Request, scores: dict[int, float], quota: int, path: Callable[[int], tuple[str, ...]]
) -> Candidates:
    """The best of what was found, ties by video id."""
    ids = request.snapshot.ids
    order = sorted(scores, key=lambda row: (-scores[row], ids[row]))[:quota]
    rows: Rows = np.array(order, np.int64)
    return Candidates(name, rows, np.array([scores[row] for row in order], np.float64), Paths(order, path))
