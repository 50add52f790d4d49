"""How many impressions a new video needs to find its audience: `python -m bench.exploration [DATA]` writes
results/exploration.json.

TikTok's real interactions and picture vectors (DATA, by default ../shared/data; skipped aloud where absent). `NEW`
videos that at least `AUDIENCE` people had are made new: nobody's history knows them. Then people who had one of them in
truth come in random order, `ROUNDS` times each; each is shown one new video that he was not shown yet, and likes it
if he is one of those who had it. A video that `FOUND` people liked has found its audience and makes room for the
others.

- random: any new video
- freshest: the one published last; one is published every `EVERY` impressions
- likeliest: cosine of the viewer's interest and the video, without learning
- thompson: `ranker.exploration` as it is served: Beta posterior times fit, the audience drawn to those who liked it
- thompson without content: the Beta posterior alone

The interest of a viewer is the mean of the centred vectors of what he had. Reported are means over seeds; settings were
chosen on other seeds (100 to 109).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.recall import DATA
from bench.recall_data import tiktok_split
from bench.results import write
from ranker.exploration import ExplorationConfig, audiences, fits, posterior, prior_means, unit

SEEDS = tuple(range(10))
NEW, AUDIENCE, FOUND, ROUNDS = 50, 15, 3, 6
EVERY = 20  # impressions between two publications
Float64 = npt.NDArray[np.float64]


class World:
    """Viewers, their interests, and the new videos with those who will like them."""

    def __init__(self, folder: Path, seed: int) -> None:
        split = tiktok_split(folder)
        stream = np.random.Generator(np.random.PCG64(seed))
        had = split.train.matrix
        rows = split.features["image"].astype(np.float64)
        vectors = unit(rows - rows.mean(axis=0))
        enough = np.flatnonzero(np.diff(had.tocsc().indptr) >= AUDIENCE)
        new = np.sort(stream.permutation(enough)[:NEW])
        old = np.setdiff1d(np.arange(had.shape[1]), new)
        # Those who like one of the new videos at least: whether the others would is not in the data.
        viewers = np.flatnonzero((np.diff(had[:, old].indptr) > 0) & (np.diff(had[:, new].indptr) > 0))
        self.vectors = vectors[new].astype(np.float32)
        self.interests = unit(np.asarray(had[viewers][:, old] @ vectors[old]))
        self.likes = np.asarray(had[viewers][:, new].toarray() > 0)
        # What is known of old videos: nearly nobody whom they are shown likes one, as with the new.
        self.known = vectors[old].astype(np.float32)
        self.liked = np.asarray(had[:, old].sum(axis=0), np.float64).ravel()
        self.shown = np.full(len(old), float(len(viewers)))
        self.order = np.concatenate([stream.permutation(len(viewers)) for _ in range(ROUNDS)])


class Policy:
    """Chooses among the new videos that a viewer was not shown. Told of every impression."""

    def __init__(self, world: World, stream: np.random.Generator, config: ExplorationConfig) -> None:
        self.world, self.stream, self.config = world, stream, config
        count = len(world.vectors)
        self.shown, self.liked = np.zeros(count), np.zeros(count)
        self.likers: dict[int, Float64] = {}
        self.prior = prior_means(world.vectors, world.known, world.shown, world.liked, config)

    def told(self, viewer: int, video: int, liked: bool) -> None:
        """What came of an impression."""
        self.shown[video] += 1
        self.liked[video] += liked
        if liked:
            self.likers[video] = self.likers.get(video, 0) + self.world.interests[viewer]

    def random(self, viewer: int, number: int) -> Float64:  # noqa: ARG002
        """Any."""
        return self.stream.random(len(self.shown))

    def freshest(self, viewer: int, number: int) -> Float64:  # noqa: ARG002
        """Published last, of those that are."""
        place = np.arange(len(self.shown))
        return np.where(place <= number // EVERY % len(place), place, place - len(place)).astype(np.float64)

    def likeliest(self, viewer: int, number: int) -> Float64:  # noqa: ARG002
        """Nearest."""
        return np.asarray(self.world.vectors @ self.world.interests[viewer], np.float64)

    def thompson(self, viewer: int, number: int) -> Float64:  # noqa: ARG002
        """As served."""
        wanted = audiences(self.world.vectors, self.likers, self.config)
        fit = fits(self.world.interests[viewer : viewer + 1], np.ones(1), wanted, self.config)
        return self.theta() * fit

    def thompson_without_content(self, viewer: int, number: int) -> Float64:  # noqa: ARG002
        """The chance alone."""
        return self.theta()

    def theta(self) -> Float64:
        return posterior(self.shown, self.liked, self.prior, self.config).draw(self.stream)


POLICIES: dict[str, Callable[[Policy, int, int], Float64]] = {
    "random": Policy.random,
    "freshest": Policy.freshest,
    "likeliest": Policy.likeliest,
    "thompson": Policy.thompson,
    "thompson without content": Policy.thompson_without_content,
}


def run(world: World, name: str, seed: int, config: ExplorationConfig) -> dict[str, float]:
    """One policy over all arrivals."""
    policy = Policy(world, np.random.Generator(np.random.PCG64(seed)), config)
    seen = np.zeros(world.likes.shape, bool)
    found, impressions = np.zeros(len(world.vectors)), np.zeros(len(world.vectors))
    shown, half = 0, float("nan")
    for number, viewer in enumerate(world.order.tolist()):
        open_to_him = ~seen[viewer] & (found < FOUND)
        if not open_to_him.any():
            continue
        video = int(np.argmax(np.where(open_to_him, POLICIES[name](policy, viewer, number), -np.inf)))
        liked = bool(world.likes[viewer, video])
        seen[viewer, video] = True
        impressions[video] += 1
        found[video] += liked
        shown += 1
        policy.told(viewer, video, liked)
        if np.isnan(half) and (found >= FOUND).mean() >= 0.5:
            half = shown
    there = found >= FOUND
    return {
        "impressions_until_half_were_found": half,
        "found": float(there.mean()),
        "impressions_per_video_found": float(impressions.sum() / max(there.sum(), 1)),
        "median_impressions": float(np.median(np.where(there, impressions, np.inf))),
        "never_shown": float((impressions == 0).mean()),
    }


def main(folder: Path) -> None:
    if not (folder / "tiktok").is_dir():
        print(f"skipped: there is no data for research in {folder}")
        return
    config, rows = ExplorationConfig(), {}
    worlds = [World(folder / "tiktok", seed) for seed in SEEDS]
    for name in POLICIES:
        started = time.process_time()
        runs = [run(world, name, seed, config) for seed, world in zip(SEEDS, worlds, strict=True)]
        rows[name] = _spread(runs) | {"cpu_seconds": round(time.process_time() - started, 1)}
        print(f"{name:26}", rows[name], flush=True)
    chance = float(np.mean([world.likes.mean() for world in worlds]))
    document = {
        "new_videos": NEW,
        "found_by": FOUND,
        "impressions": len(worlds[0].order),
        "liked_per_1000_by_chance": round(1000 * chance, 2),
        "config": config.model_dump(),
        "rows": rows,
    }
    print(write("exploration", document))


def _spread(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Means over seeds, and the standard deviation between them."""
    found = {name: [one[name] for one in runs] for name in runs[0]}
    return {name: round(float(np.mean(values)), 3) for name, values in found.items()} | {
        "spread": {name: round(float(np.std(values, ddof=1)), 3) for name, values in found.items()}
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
