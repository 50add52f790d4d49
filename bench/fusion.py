"""Fusions compared on real clips that training did not see: the other half found, by all modalities and without one.

    python -m bench.fusion [--seeds 5] [--folds 4] [--media FOLDER] [--skip-cost]

Clips are split by footage and series, never by window; every clip is tested by a fusion that was trained without it, in
`folds` folds, and all of it again for each seed. All clips stand in the gallery. What a task is, and what the rows that
are not trained compute, is in `bench.fusion_tasks`; where tokens come from, in `bench.fusion_clips`. The first run
reads and encodes the clips (5 CPU minutes), later ones take their tokens from the cache.

The row `trained` is what `reelsense train fusion` gives with its defaults. Those were chosen on seeds that are not in
the table (100 and above: other folds, other draws), by the means of the mean reciprocal ranks with full input and with
a modality missing. The clips are the same, so the table is somewhat kinder to it than new clips would be.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench import results
from bench.fusion_clips import ROOM, Clip, clips
from bench.fusion_cost import cost
from bench.fusion_tasks import (
    Ranks,
    Row,
    Tasks,
    TokenSet,
    alone,
    concatenation_row,
    joined,
    mean_row,
    product_row,
    sum_row,
    training_free_row,
    usable,
)
from fusion.faithfulness import SHARES, deletion
from fusion.network import NetworkConfig
from fusion.trained import TrainedFusion
from fusion.training import TrainingConfig, train
from fusion.views import TrainingVideo
from store.records import MODALITIES, Float32, Modality, Tokens
from store.settings import load_settings

WIDTHS: dict[Modality, int] = {"vision": 1280, "audio": 178, "text": 384}
# Other recordings that a training video has: pictures and sound.
RECORDINGS = (("mirrored", "slow"), ("plain", "fast"), ("mirrored", "quiet"), ("plain", "mixed"), ("mirrored", "plain"))
TASKS = ("full", *(f"without {name}" for name in MODALITIES), "sound to frames", "words to frames")
Found = dict[str, Ranks | npt.NDArray[np.float64]]


def folds_of(found: Sequence[Clip], seed: int, count: int) -> npt.NDArray[np.intp]:
    """The fold of each clip: groups in an order drawn by `seed`, films and sounds spread evenly."""
    groups = sorted(
        {clip.source.group for clip in found},
        key=lambda group: (group.startswith("audio"), hashlib.sha256(f"{seed}/{group}".encode()).digest()),
    )
    fold = {group: place % count for place, group in enumerate(groups)}
    return np.array([fold[clip.source.group] for clip in found])


def training_video(clip: Clip) -> TrainingVideo:
    """A clip as training takes it."""
    recordings = [named(clip.whole(*recording)) for recording in RECORDINGS]
    return TrainingVideo(named(clip.whole()), recordings, clip.source.group)


def trained_on(videos: Mapping[str, TrainingVideo], seed: int, **changed: Any) -> TrainedFusion:
    """The fusion that a user would get from these videos."""
    config = TrainingConfig.model_validate({"seed": seed} | changed)
    network = NetworkConfig.model_validate({"widths": dict(WIDTHS)})
    return train(videos, network, config).fusion


def named(tokens: TokenSet) -> dict[str, Tokens]:
    """The same tokens, by any name."""
    return {str(name): part for name, part in tokens.items()}


def row_of(fusion: TrainedFusion) -> Row:
    """A trained fusion as a row."""

    def row(videos: Sequence[TokenSet]) -> Float32:
        able = [place for place, tokens in enumerate(videos) if usable(tokens)]
        vectors = np.zeros((len(videos), fusion.config.dim), np.float32)
        if able:
            vectors[able] = fusion.vectors([named(videos[place]) for place in able])
        return vectors

    return row


def together(runs: Sequence[Found]) -> dict[str, dict[str, float]]:
    """The scores of one seed: the queries of all folds."""
    scores = {}
    for task in TASKS:
        ranks = [run[task] for run in runs]
        scores[task] = joined([found for found in ranks if isinstance(found, Ranks)]).scores()
    right = np.concatenate([np.asarray(run["subject"]) for run in runs])
    scores["subject"] = {"accuracy": float(right.mean()), "queries": len(right)}
    missing = [scores[f"without {name}"] for name in MODALITIES]
    scores["missing"] = {name: float(np.mean([one[name] for one in missing])) for name in ("r1", "r5", "mrr")}
    return scores


def over_seeds(seeds: Sequence[dict[str, dict[str, float]]], task: str) -> dict[str, float]:
    """Means over the seeds, and the standard deviation of the first of them as `spread`."""
    names = [name for name in seeds[0][task] if name != "queries"]
    means = {name: round(float(np.mean([seed[task][name] for seed in seeds])), 4) for name in names}
    spread = float(np.std([seed[task][names[-1]] for seed in seeds]))
    return means | {"spread": round(spread, 4)}


def measured(found: Sequence[Clip], seeds: Sequence[int], count: int, **changed: Any) -> dict[str, Any]:
    """All rows on all tasks, and the faithfulness of the trained one."""
    tasks = Tasks(found)
    everyone = np.ones(len(found), bool)
    fixed: dict[str, Row] = {name: alone(name) for name in MODALITIES} | {
        "mean": mean_row,
        "sum": sum_row,
        "product": product_row,
        "attention": training_free_row,
    }
    rows = {name: [together([tasks.run(row, everyone)])] for name, row in fixed.items()}
    rows |= {"concatenation": [], "trained": []}
    videos = {clip.source.name: training_video(clip) for clip in found}
    curves = []
    for seed in seeds:
        fold = folds_of(found, seed, count)
        runs: dict[str, list[Found]] = {"concatenation": [], "trained": []}
        for number in range(count):
            tested = fold == number
            seen = [clip for clip, out in zip(found, tested, strict=True) if not out]
            halves = [half for clip in seen for half in (clip.half(0), clip.half(1))]
            fusion = trained_on({clip.source.name: videos[clip.source.name] for clip in seen}, seed, **changed)
            runs["concatenation"].append(tasks.run(concatenation_row(halves, WIDTHS), tested))
            runs["trained"].append(tasks.run(row_of(fusion), tested))
            unseen = [clip.whole() for clip, out in zip(found, tested, strict=True) if out]
            if seed == seeds[0]:
                curves.append(deletion([named(tokens) for tokens in unseen], fusion.fuse_any, seed))
        for name, run in runs.items():
            rows[name].append(together(run))
        print(f"seed {seed}: " + line("trained", [rows["trained"][-1]]), flush=True)
    gains = [curve.gain for curve in curves]
    return {
        "full": {name: over_seeds(scores, "full") for name, scores in rows.items()},
        "missing": {name: over_seeds(scores, "missing") for name, scores in rows.items()},
        "tasks": {
            task: {name: over_seeds(scores, task) for name, scores in rows.items()} for task in (*TASKS[1:], "subject")
        },
        "queries": {task: rows["trained"][0][task]["queries"] for task in (*TASKS, "subject")},
        "faithfulness": {
            "gain": round(float(np.mean(gains)), 4),
            "spread": round(float(np.std(gains)), 4),
            "shares": list(SHARES),
            "by_weight": [round(float(value), 4) for value in np.mean([curve.by_weight for curve in curves], axis=0)],
            "at_random": [round(float(value), 4) for value in np.mean([curve.at_random for curve in curves], axis=0)],
        },
    }


def line(name: str, seeds: Sequence[dict[str, dict[str, float]]]) -> str:
    """A row for people."""
    full, missing = over_seeds(seeds, "full"), over_seeds(seeds, "missing")
    parts = [f"{name:14s} full R@1 {full['r1']:.3f} MRR {full['mrr']:.3f}"]
    parts += [f"missing R@1 {missing['r1']:.3f} MRR {missing['mrr']:.3f}"]
    parts += [f"{task} {over_seeds(seeds, task)['mrr']:.3f}" for task in TASKS[1:]]
    return " | ".join([*parts, f"subject {over_seeds(seeds, 'subject')['accuracy']:.3f}"])


def real_clips(media: Path) -> list[Clip]:
    """The clips of the bench: those of which either half has something to go by, but for the room's tone, which is
    mixed into others."""
    found = clips(media, load_settings())
    return [clip for clip in found if clip.source.name != ROOM and usable(clip.half(0)) and usable(clip.half(1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--media", type=Path, default=Path(__file__).parents[2] / "shared" / "media")
    parser.add_argument("--skip-cost", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    found = real_clips(arguments.media)
    document = measured(found, range(arguments.seeds), arguments.folds)
    document["clips"] = {
        "all": len(found),
        "with pictures": sum(bool(len(clip.pictures["plain"])) for clip in found),
        "groups": len({clip.source.group for clip in found}),
        "folds": arguments.folds,
        "seeds": arguments.seeds,
    }
    fusion = trained_on({clip.source.name: training_video(clip) for clip in found}, 0)
    if not arguments.skip_cost:
        document["cost"] = cost(fusion)
    document["cpu_seconds"] = round(time.process_time() - begun)
    path = results.write("fusion", document)
    for part in ("full", "missing"):
        print(f"\n{part:14s} R@1   R@5   MRR   spread")
        for name, row in sorted(document[part].items(), key=lambda item: -item[1]["mrr"]):
            print(f"{name:14s} {row['r1']:.3f} {row['r5']:.3f} {row['mrr']:.3f} {row['spread']:.3f}")
    print(f"\nfaithfulness: gain {document['faithfulness']['gain']}\nwritten: {path}")


if __name__ == "__main__":
    main()
