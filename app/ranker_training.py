"""What rankers are trained on: the events of this installation, and what its published videos are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ranker.models.training_data import Content, Float32, TrainingData

if TYPE_CHECKING:
    from app.operations import ReelSense
    from ranker.interactions import Sparse
    from ranker.video_table import Snapshot, VideoTable
    from store.event_following import FollowedEvent

PAGE = 20_000


@dataclass(frozen=True, eq=False)
class CatalogueData:
    """`data` by numbers, and whose they are: `video_ids[n]` is the video n, `viewer_ids[n]` the viewer n, both in the
    order of ids."""

    data: TrainingData
    video_ids: tuple[str, ...]
    viewer_ids: tuple[str, ...]

    def __repr__(self) -> str:
        log = self.data.log
        return f"CatalogueData(acts={len(log)}, viewers={len(self.viewer_ids)}, videos={len(self.video_ids)})"


def training_data_of(reelsense: ReelSense, *, content: bool = True) -> CatalogueData:
    """All acts that count, on all videos that are published and may be shown, with what these are (unless `content` is
    false: then no artifact is read).

    Viewers are those with at least one act on such a video. Features, of unit length each, float32 [n_videos, dim]:
    `fused`, the served vector; `vision`, `audio`, `text`, what each modality adds to it, zeros where a video has none
    or its artifact cannot be read. Raises `store.unavailable`, `database.unavailable`.
    """
    from ranker.models.event_acts import log_of

    table = reelsense.table
    snapshot = table.snapshot
    video_ids = tuple(sorted(snapshot.row_of))
    videos = {name: number for number, name in enumerate(video_ids)}
    durations = {name: snapshot.rows[snapshot.row_of[name]].duration for name in video_ids}
    events = [event for event in _events(reelsense) if event.video_id in videos]
    viewer_ids = tuple(sorted({event.user_id for event in events}))
    log = log_of(events, {name: number for number, name in enumerate(viewer_ids)}, videos, durations)
    found = _content(table, snapshot, video_ids) if content else Content()
    return CatalogueData(TrainingData(log, found), video_ids, viewer_ids)


def _events(reelsense: ReelSense) -> Iterator[FollowedEvent]:
    """All events that count, in the order of their arrival."""
    from store.event_following import events_after

    # The log makes its tables when it is first opened.
    catalogue = reelsense.event_log.catalogue
    last = 0
    while page := events_after(catalogue, last, PAGE):
        yield from page
        last = page[-1].sequence


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
