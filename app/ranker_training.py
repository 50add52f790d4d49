"""Training rankers: on the events of this installation, and on what its published videos are.

A trained ranker is stored as a challenger; `app.ranker_models` makes it the champion that is served, if it is better.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.training import leads
from ranker.models.model import Model, Progress, Run, make_model
from ranker.models.training_data import Content, Float32, TrainingData
from ranker.models.validation import METRIC, Split, mean_of, split_by_time
from ranker.stored_rankers import StoredRanker, save
from store.errors import ReelsenseError, SettingsError

if TYPE_CHECKING:
    from app.operations import ReelSense
    from ranker.interactions import Sparse
    from ranker.video_table import Snapshot, VideoTable
    from store.event_following import FollowedEvent

PAGE = 20_000


@dataclass(frozen=True, eq=False)
class CatalogueData:
    """`data` by numbers, and whose they are: `video_ids[n]` is the video n, `viewer_ids[n]` the viewer n, both in the
    order of ids; `until` the sequence of the last event that was read."""

    data: TrainingData
    video_ids: tuple[str, ...]
    viewer_ids: tuple[str, ...]
    until: int = 0

    def __repr__(self) -> str:
        log = self.data.log
        return f"CatalogueData(acts={len(log)}, viewers={len(self.viewer_ids)}, videos={len(self.video_ids)})"


def training_data_of(
    reelsense: ReelSense,
    *,
    content: bool = True,
    until: int | None = None,
    video_ids: Sequence[str] | None = None,
    viewer_ids: Sequence[str] | None = None,
) -> CatalogueData:
    """All acts that count, on all videos that are published and may be shown, with what these are (unless `content` is
    false: then no artifact is read). With `until` only events up to that sequence; `video_ids` and `viewer_ids` give
    the numbers that are wanted, without `content`.

    Viewers are those with at least one act on such a video. Features, of unit length each, float32 [n_videos, dim]:
    `fused`, the served vector; `vision`, `audio`, `text`, what each modality adds to it, zeros where a video has none
    or its artifact cannot be read. Raises `store.unavailable`, `database.unavailable`.
    """
    from ranker.models.event_acts import log_of
    from store.event_log import video_durations

    table = reelsense.table
    snapshot = table.snapshot
    names = tuple(sorted(snapshot.row_of)) if video_ids is None else tuple(video_ids)
    videos = {name: number for number, name in enumerate(names)}
    durations = {name: snapshot.rows[snapshot.row_of[name]].duration for name in names if name in snapshot.row_of}
    durations |= video_durations(reelsense.catalogue, [name for name in names if name not in durations])
    last = reelsense.event_log.highest() if until is None else until
    events = [event for event in _events(reelsense, last) if event.video_id in videos]
    viewers = tuple(sorted({event.user_id for event in events})) if viewer_ids is None else tuple(viewer_ids)
    log = log_of(events, {name: number for number, name in enumerate(viewers)}, videos, durations)
    found = _content(table, snapshot, names) if content and video_ids is None else Content()
    return CatalogueData(TrainingData(log, found), names, viewers, last)


def _events(reelsense: ReelSense, until: int) -> Iterator[FollowedEvent]:
    """All events that count up to a sequence, in the order of their arrival."""
    from store.event_following import events_after

    # The log makes its tables when it is first opened.
    catalogue = reelsense.event_log.catalogue
    last = 0
    while page := events_after(catalogue, last, PAGE):
        yield from (event for event in page if event.sequence <= until)
        last = page[-1].sequence
        if last >= until:
            return


def _content(table: VideoTable, snapshot: Snapshot, video_ids: Sequence[str]) -> Content:
    from ranker.modality_parts import modality_sums
    from store.records import MODALITIES

    rows = np.array([snapshot.row_of[name] for name in video_ids], np.int64)
    width = snapshot.vectors.shape[1]
    parts = np.zeros((len(MODALITIES), len(rows), width), np.float32)
    for place, name in enumerate(video_ids):
        if (video := table.find(name)) is not None:
            parts[:, place] = modality_sums(video)[1]
    features: dict[str, Float32] = {"fused": snapshot.vectors[rows]}
    for number, modality in enumerate(MODALITIES):
        lengths = np.linalg.norm(parts[number], axis=1, keepdims=True)
        features[modality] = np.divide(parts[number], lengths, out=np.zeros_like(parts[number]), where=lengths > 0)
    return Content(features, *_tags([snapshot.rows[row].tags for row in rows.tolist()]))


def _tags(tags: Sequence[dict[str, float]]) -> tuple[Sparse, tuple[str, ...]]:
    """CSR float32 [n_videos, n_tags] of the weights above 0, and the names of the columns."""
    from scipy import sparse  # type: ignore[import-untyped]

    names = tuple(sorted({name for own in tags for name, weight in own.items() if weight > 0}))
    column = {name: number for number, name in enumerate(names)}
    cells = [(row, column[name], own[name]) for row, own in enumerate(tags) for name in sorted(own) if own[name] > 0]
    weights = np.array([weight for _, _, weight in cells], np.float32)
    places = ([row for row, _, _ in cells], [number for _, number, _ in cells])
    return sparse.csr_matrix((weights, places), shape=(len(tags), len(names))), names


# --- training --------------------------------------------------------------------------------------------------------


def train_ranker(
    reelsense: ReelSense,
    name: str,
    *,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Train the model of that name, stopping early by what was held back, and store it as a challenger. A run that was
    stopped goes on from its checkpoint, with the events that it had begun with.

    Under torchrun every process calls this, each computes its share of a batch, and the first (`app.training.leads`)
    stores the model. Whatever `on_progress` raises ends the run; its checkpoint stays.

    Raises `ranker.no_such_model`, `ranker.too_few_events`, `ranker.not_finite`, `ranker.training_failed`,
    `request.invalid` for settings that the model does not have.
    """
    given = dict(settings or {}) | ({} if seed is None else {"seed": seed})
    checkpoint = reelsense.settings.data / "training" / f"ranker-{name}.safetensors"
    model = make_model(name, given)
    began = time.process_time()
    with _crew() as agreed:
        until = agreed(_until(reelsense, checkpoint, model))
        found = training_data_of(reelsense, until=until)
        split = split_by_time(found.data.log)
        data = TrainingData(split.train, found.data.content)
        run = Run(split.judge(), on_progress, checkpoint)
        facts = _fitted(model, data, run, checkpoint)
    ranker = StoredRanker(model, found.video_ids, found.viewer_ids, found.data.content.tag_names)
    card = _card(ranker, found, split, facts, time.process_time() - began)
    if leads():
        save(reelsense.objects, ranker, card, markdown(card))
        _forget_again(reelsense, ranker)
        checkpoint.unlink(missing_ok=True)
        _note_of(checkpoint).unlink(missing_ok=True)
    return {"ranker": ranker.title, "card": card}


def submitted(
    reelsense: ReelSense,
    name: str,
    seed: int | None,
    settings: Mapping[str, Any],
    *,
    promote: bool,
    who: str | None = None,
) -> dict[str, Any]:
    """Ask a training worker to do it: the job, of `who` or the OS user. What makes no sense is refused here and now.
    Raises as `train_ranker` does before it begins, and `stack.not_running`."""
    from app.administration import this_user
    from app.training_worker import submit

    make_model(name, dict(settings) | ({} if seed is None else {"seed": seed}))
    request = {"model": name, "seed": seed, "settings": dict(settings), "promote": promote}
    return submit(reelsense.settings, reelsense.catalogue, request, who or this_user().who).model_dump()


def parsed_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` lines; values are JSON where they are JSON, else text. Raises `settings.invalid`."""
    found: dict[str, Any] = {}
    for line in assignments:
        name, sign, text = line.partition("=")
        if not sign or not name.strip():
            raise SettingsError("settings.invalid", f"{line[:100]!r} is not NAME=VALUE.", hint="Such as epochs=20.")
        try:
            found[name.strip()] = json.loads(text)
        except ValueError:
            found[name.strip()] = text.strip()
    return found


@contextlib.contextmanager
def _crew() -> Iterator[Callable[[int], int]]:
    """The processes that torchrun started, and a way to agree on the first one's number; alone, its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield lambda number: number
        return
    import torch
    from torch import distributed

    from fusion.gathering import crew

    def agreed(number: int) -> int:
        told = torch.tensor([number], dtype=torch.int64)
        distributed.broadcast(told, 0)
        return int(told)

    with crew():
        yield agreed


def _note_of(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".json")


def _until(reelsense: ReelSense, checkpoint: Path, model: Model) -> int:
    """Up to which event the run reads: to the last, or as far as the run did that is gone on with."""
    note, config = _note_of(checkpoint), model.config.model_dump(mode="json")
    if checkpoint.exists():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(note.read_text())
            if told["config"] == config:
                return int(told["until"])
    until = reelsense.event_log.highest()
    if leads():
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        aside = note.with_suffix(".aside")
        aside.write_text(json.dumps({"until": until, "config": config}))
        aside.replace(note)
    return until


def _fitted(model: Model, data: TrainingData, run: Run, checkpoint: Path) -> dict[str, Any]:
    try:
        return model.fit(data, run)
    except ReelsenseError as error:
        # A checkpoint of another run (other events or videos, other settings) is of no use to this one.
        if error.code != "ranker.bad_checkpoint":
            raise
        checkpoint.unlink(missing_ok=True)
        return model.fit(data, run)


def _forget_again(reelsense: ReelSense, ranker: StoredRanker) -> None:
    """Whoever was forgotten while the model was trained is taken out of it now that it is stored: either this finds
    that their events are gone, or forgetting, which looks after it has deleted them, finds the model."""
    from app.ranker_models import forget_in_rankers

    held = {name for name in ranker.viewers if name is not None}
    gone = held - {event.user_id for event in _events(reelsense, sys.maxsize)}
    if gone:
        forget_in_rankers(reelsense, gone)


def _card(
    ranker: StoredRanker, found: CatalogueData, split: Split, facts: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """What the model was made of, how, and how well it does (Mitchell et al. 2019), for JSON. It names no viewer."""
    measured = split.measured(lambda viewers: ranker.model.score(split.train, viewers))
    packages = ["numpy", "scipy", "safetensors"] + (["torch"] if "torch" in sys.modules else [])
    log = found.data.log
    return {
        "model": ranker.model.name,
        "version": ranker.version,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "intended_use": "A source of candidates for the feeds of the installation whose events it was trained on.",
        "limits": (
            "Videos published later have no number in it and are found by the other sources. "
            "What it says of viewers who were not there is what the model's description says of strangers."
        ),
        "data": {
            "acts": len(log),
            "liked": int((log.values > 0).sum()),
            "viewers": log.n_viewers,
            "videos": log.n_videos,
            "learnt_from": len(split.train),
            "until": found.until,
        },
        "validation": {
            "held_back": split.how,
            "cut": split.cut,
            "viewers": split.viewers,
            **{name: round(mean_of(measured, name), 6) for name in measured.each},
        },
        "metric": METRIC,
        "settings": ranker.model.config.model_dump(mode="json"),
        "fit": dict(facts),
        "cpu_seconds": round(seconds, 3),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "software": {"python": platform.python_version()} | {name: package_version(name) for name in packages},
        "forgotten_viewers": 0,
        "promotions": [],
    }


def markdown(card: Mapping[str, Any]) -> str:
    """The card for people."""
    lines = [f"# {card['model']} {card['version']}", "", f"Trained at {card['trained_at']}. {card['intended_use']}"]
    lines += ["", card["limits"]]
    for title in ("data", "validation", "settings", "fit", "software"):
        lines += ["", f"## {title.capitalize()}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in card[title].items()]
    return "\n".join(lines) + "\n"
