"""Viewers with planted tastes over real clips: `python -m bench.synthetic_viewers [--read]` writes
results/synthetic_viewers.json.

What is real: the clips in ../shared/media, their lengths, and their tags (the subject and the words of index.csv's
description; each clip is cut in two halves, which share no clause of it). With `--read` each half also has its fused
vector, from tokens of real encoders (`bench.fusion_clips`; minutes of CPU the first time). What is made up: the people.

A viewer loves some subjects, is put off by others, and leans a little towards or away from each word. His affinity to a
video is a = taste . tags + the video's quality; what he is shown leans towards what he likes, as a feed would; and what
he does is drawn from

    P(finish) = sigma(1.2 a - 0.5 ln(seconds / 10) - 0.3)      P(like)           = sigma(1.4 a - 1.8)
    P(share)  = sigma(1.3 a - 3.0)                             P(follow)         = sigma(1.3 a + maker - 3.2)
    P(not interested) = sigma(-1.4 a - 2.6)                    else watched:  a Beta share, larger with a

The heads are then measured against the *oracle*: these very chances, which no model can beat but by luck. Each viewer's
last fifth is the test.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse  # type: ignore[import-untyped]
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from bench.fusion_clips import LEAST_SECONDS, MOST_SECONDS, Source, clauses, sources
from bench.heads import quality_of_heads
from bench.results import write
from fusion.attention import FusionConfig, fuse
from ranker.events import ACT_VALUES, KINDS, value
from ranker.models.calibration import head_quality, sigmoid
from ranker.models.multitask import MultiTask
from ranker.models.task_outcomes import DURATION, HEADS, Outcomes, outcomes_of, watch_norms
from ranker.models.training_data import ActLog, Content, Float64, Integers, TrainingData
from ranker.watch_time import WatchNorms
from store.catalogue import StoredEvent
from store.settings import load_settings

MEDIA = Path(__file__).parents[2] / "shared" / "media"
VIEWERS, SHOWN, TEST_SHARE, SEED = 300, 50, 0.2, 7
LEAST_LETTERS, LEAST_CLIPS = 4, 3
LEAST_SHOWN = 10
START = 1_750_000_000.0
# Any model's inputs; content alone is in the tags.
INPUTS = ("ease", "als", "item_knn")
# Of a table of seconds, from none to twice the length.
STEPS = 401


@dataclass(frozen=True, eq=False)
class Planted:
    """The world: `content` of the videos, and by head the true chances float64 [viewers, videos]."""

    content: Content
    seconds: Float64
    chances: dict[str, Float64]


@dataclass(frozen=True, eq=False)
class Acts:
    """`train` and `test` logs of the same viewers and videos."""

    train: ActLog
    test: ActLog


def content_of(media: Path, read: bool = False) -> tuple[Content, Float64]:
    """(content, float64 [n_videos] seconds): two videos of each clip, first half and second half."""
    settings = load_settings()
    with (media / "index.csv").open(newline="") as stream:
        length = {row["file"]: float(row["duration_s"] or 0) for row in csv.DictReader(stream)}
    everything = sources(media, settings.cache)
    found = [source for source in everything if source.subject and length.get(source.name, 0) >= LEAST_SECONDS]
    words = [[set(_words(clauses(source.description)[half::2])) for half in (0, 1)] for source in found]
    count = Counter(word for halves in words for word in halves[0] | halves[1])
    kept = {word for word, clips in count.items() if clips >= LEAST_CLIPS}
    rows = [
        {f"subject {source.subject}"} | {f"word {word}" for word in half & kept}
        for source, halves in zip(found, words, strict=True)
        for half in halves
    ]
    names = sorted(set().union(*rows))
    dense = np.array([[float(name in row) for name in names] for row in rows], np.float32)
    seconds = np.repeat([min(length[source.name], MOST_SECONDS) / 2 for source in found], 2)
    features = {DURATION: seconds[:, None].astype(np.float32)}
    if read:
        features["fused"] = _fused(media, found)
    return Content(features, sparse.csr_matrix(dense), tuple(names)), seconds


def _words(parts: list[str]) -> list[str]:
    return [word for part in parts for word in re.findall(rf"[a-z]{{{LEAST_LETTERS},}}", part.lower())]


def _fused(media: Path, wanted: list[Source]) -> npt.NDArray[np.float32]:
    from bench.fusion_clips import clips

    known = {clip.source.name: clip for clip in clips(media, load_settings())}
    config, rows = FusionConfig(), []
    for source in wanted:
        for half in (0, 1):
            tokens = known[source.name].half(half) if source.name in known else {}
            named = {modality: ["token"] * len(found) for modality, found in tokens.items()}
            rows.append(fuse(tokens, named, config).vector if tokens else np.zeros(config.dim, np.float32))
    return np.stack(rows)


def planted(content: Content, seconds: Float64, viewers: int = VIEWERS, seed: int = SEED) -> Planted:
    """Tastes, qualities and makers, and the chances that follow from them."""
    stream = np.random.Generator(np.random.PCG64(seed))
    if content.tags is None:
        raise ValueError("tastes are over tags")
    tags = np.asarray(content.tags.toarray(), np.float64)
    subjects = np.array([name.startswith("subject") for name in content.tag_names])
    taste = np.where(subjects, 0.0, stream.normal(0, 0.35, (viewers, len(subjects))))
    of_subjects = np.flatnonzero(subjects)
    for row in taste:
        picked = stream.permutation(of_subjects)
        row[picked[:3]], row[picked[3:6]] = stream.uniform(1.0, 2.0, 3), -stream.uniform(0.8, 1.6, 3)
    affinity = taste @ tags.T + stream.normal(0, 0.4, len(tags)) + stream.normal(0, 0.3, (viewers, 1))
    maker = stream.normal(0, 0.7, len(tags))
    return Planted(
        content,
        seconds,
        {
            "affinity": affinity,
            "finish": sigmoid(1.2 * affinity - 0.5 * np.log(seconds / 10) - 0.3),
            "like": sigmoid(1.4 * affinity - 1.8),
            "share": sigmoid(1.3 * affinity - 3.0),
            "follow": sigmoid(1.3 * affinity + maker - 3.2),
            "not_interested": sigmoid(-1.4 * affinity - 2.6),
        },
    )


def acts(world: Planted, shown: int = SHOWN, seed: int = SEED) -> Acts:
    """What everybody does with some videos, `shown` of them or thereabouts, one after another."""
    stream = np.random.Generator(np.random.PCG64([seed, 1]))
    affinity = world.chances["affinity"]
    viewers, videos = affinity.shape
    rows: list[tuple[int, int, float, float, float, int, bool]] = []
    for viewer in range(viewers):
        # Gumbel noise: draws without replacement, the likelier the more he likes it.
        most = int(np.clip(shown * stream.lognormal(0, 0.4), LEAST_SHOWN, videos))
        order = np.argsort(-(0.6 * affinity[viewer] + stream.gumbel(size=videos)))[:most]
        order = stream.permutation(order)
        begun = START + stream.uniform(0, 30 * 86_400)
        for number, video in enumerate(order):
            at = begun + number * 3_600 * stream.uniform(0.5, 1.5)
            later = number >= (1 - TEST_SHARE) * most
            for kind, share in _drawn(world, viewer, int(video), stream):
                worth = _value(kind, share, float(world.seconds[video]))
                rows.append((viewer, int(video), at, worth, share, KINDS.index(kind), later))
                at += 1.0
    columns = [np.array(column) for column in zip(*rows, strict=True)]

    def log_of(which: npt.NDArray[np.bool_]) -> ActLog:
        viewer, video, at, worth, share, kind = (column[which] for column in columns[:-1])
        return ActLog.of(
            viewer, video, viewers, videos, at=at, values=worth.astype(np.float32),
            watched=share.astype(np.float32), kinds=kind.astype(np.int8),
        )  # fmt: skip

    return Acts(log_of(~columns[-1]), log_of(columns[-1]))


def _drawn(world: Planted, viewer: int, video: int, stream: np.random.Generator) -> list[tuple[str, float]]:
    """(kind, watched share or nan) of one viewer's acts on one video."""
    chance = {head: float(values[viewer, video]) for head, values in world.chances.items()}
    if stream.random() < chance["finish"]:
        watched = 1.0 + (stream.exponential(0.3) if stream.random() < 0.2 else 0.0)
    else:
        watched = 0.89 * float(stream.beta(1.0 + np.exp(0.5 * chance["affinity"]), 3.0))
    found = [("view", watched)]
    found += [
        (head, float("nan")) for head in ("like", "share", "follow", "not_interested") if stream.random() < chance[head]
    ]
    return found


def _value(kind: str, share: float, seconds: float) -> float:
    if kind != "view":
        return ACT_VALUES[kind]
    event = StoredEvent(id="", user_id="", video_id="", kind=kind, watched_seconds=share * seconds, at=0)
    return value(event, seconds)


def expected_share(world: Planted, viewers: Integers, videos: Integers) -> Float64:
    """float64 [n]: the oracle's mean watched share, replays left out."""
    finish, affinity = (world.chances[name][viewers, videos] for name in ("finish", "affinity"))
    first = 1.0 + np.exp(0.5 * affinity)
    return np.asarray(finish + (1 - finish) * 0.89 * first / (first + 3.0), np.float64)


def measured(model: MultiTask, world: Planted, found: Acts) -> dict[str, Any]:
    """By head what `quality_of_heads` says on the test, the oracle's figures, and of watch the seconds: by how many it
    is wrong, as is the oracle, and who says for every video what half of all views of such a length reach."""
    norms = watch_norms(found.train, world.seconds)
    if norms is None:
        raise ValueError("the clips have lengths")
    outcomes = outcomes_of(found.test, norms, world.seconds)
    pairs = (outcomes.viewers, outcomes.videos)
    result: dict[str, Any] = quality_of_heads(model, found.train, outcomes)
    for head, row in result.items():
        labels = outcomes.labels[:, HEADS.index(head)].astype(np.float64)
        known = np.isfinite(labels)
        if head != "watch":
            truth = head_quality(world.chances[head][pairs][known], labels[known])
            row["oracle_auc"], row["oracle_log_loss"] = round(truth["auc"], 4), round(truth["log_loss"], 4)
            row["share_of_oracle"] = round((row["auc"] - 0.5) / (truth["auc"] - 0.5), 4)
            continue
        said, lengths = model.predict(found.train, *pairs)[head][known], world.seconds[outcomes.videos[known]]
        oracle = expected_share(world, *pairs)[known] * lengths
        watched = _watched(found.test, outcomes)[known] * lengths
        row["spearman"] = round(float(spearmanr(said, labels[known])[0]), 4)
        row["oracle_spearman"] = round(float(spearmanr(oracle / lengths, labels[known])[0]), 4)
        for name, seconds in {
            "seconds": seconds_of(said, lengths, norms),
            "oracle_seconds": oracle,
            "half_seconds": seconds_of(np.full(len(said), 0.5), lengths, norms),
        }.items():
            row[f"{name}_mean_absolute_error"] = round(float(np.abs(seconds - watched).mean()), 3)
    return result


def seconds_of(quantiles: Float64, lengths: Float64, norms: WatchNorms) -> Float64:
    """float64 [n]: how long a view lasts that stands at this quantile among those of videos of such a length."""
    found = np.empty(len(quantiles))
    for length in np.unique(lengths):
        here = lengths == length
        seconds = np.linspace(0, 2 * length, STEPS)
        table = [norms.quantile(one, float(length)) for one in seconds.tolist()]
        found[here] = np.interp(quantiles[here], table, seconds)
    return found


def _watched(log: ActLog, outcomes: Outcomes) -> Float64:
    """float64 [pairs]: the share of the video that was watched, nan where it is not known."""
    found = np.full(len(outcomes), np.nan)
    known = np.isfinite(log.watched)
    found[outcomes.pair_of[known]] = log.watched[known]
    return found


def settings_of() -> dict[str, Any]:
    """How the ranker is taught here."""
    return {
        "inputs": INPUTS,
        "holdout": "folds",
        "drawn": 4,
        "batch": 256,
        "epochs": 6,
        "learning_rate": 2e-3,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--media", type=Path, default=MEDIA)
    parser.add_argument("--read", action="store_true", help="also read the clips by the encoders")
    said = parser.parse_args()
    if not said.media.is_dir():
        print(f"skipped: there are no clips in {said.media}")
        return
    content, seconds = content_of(said.media, said.read)
    world = planted(content, seconds)
    found = acts(world)
    started = time.process_time()
    model = MultiTask(**settings_of())
    report = model.fit(TrainingData(found.train, content))
    document = {
        "videos": len(seconds),
        "tags": len(content.tag_names),
        "content": "tags and fused vectors" if said.read else "tags: subjects and words of index.csv's descriptions",
        "viewers": found.train.n_viewers,
        "acts": {"train": len(found.train), "test": len(found.test)},
        "fit_cpu_seconds": round(time.process_time() - started, 1),
        "epochs": report["epochs"],
        "heads": measured(model, world, found),
    }
    print(json.dumps(document, indent=1))
    print(write("synthetic_viewers", document))


if __name__ == "__main__":
    main()
